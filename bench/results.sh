#!/usr/bin/env bash
# The runs behind RESULTS.md and what was measured on them, in a folder of one's own:
#
#   bash bench/results.sh train CIFAR10 EMOJI     the two archives; one core each, about half an hour
#   bash bench/results.sh digits                  five small runs, about half an hour on one core
#   bash bench/results.sh distances RUN N
#   bash bench/results.sh likelihood | edits CIFAR10 EMOJI | guidance
#
# Everything lands below runs/ and results/. One thread each: two trainings on two cores do not wait for one another.
set -euo pipefail
export OMP_NUM_THREADS=1
mkdir -p results
what=$1
shift

# The preset `small` as it was when these runs were made
small="--preset small --diffusion ddpm --times auto --schedule cosine --stem conv --width 32 --multipliers 1 2 4 --optimizer adam --lr 1e-3"
small="$small --lr-decay cosine --sampler ddim --steps 50"

mask() {  # WIDTH HEIGHT "LEFT TOP RIGHT BOTTOM" FILE: white in the box, black elsewhere
    python -c "from PIL import Image; m = Image.new('L', ($1, $2)); m.paste(255, tuple(map(int, '$3'.split()))); m.save('$4')"
}

edits() {  # RUN INPAINT MASK VARY A B INVERT
    bytepixels edit inpaint "$1" "$2" --mask "$3" -n 7 --out "$1/edits/inpaint"
    bytepixels edit vary "$1" "$4" --strength 0.6 -n 7 --out "$1/edits/vary"
    bytepixels edit interpolate "$1" "$5" "$6" -n 9 --out "$1/edits/interpolate"
    bytepixels edit invert "$1" "$7" --refine 0 --out "$1/edits/invert-0"
    bytepixels edit invert "$1" "$7" --out "$1/edits/invert"
    python -m bench.sheets "results/edits-$(basename "$1").png" "$1"/edits/{inpaint,vary,interpolate,invert}/grid.png
}

case $what in
train)
    bytepixels train "$1" $small --images 64000 --previews 4 --run runs/cifar10 > results/cifar10.log 2>&1 &
    bytepixels train "$2" $small --images 60000 --previews 4 --run runs/emoji > results/emoji.log 2>&1
    wait
    ;;
digits)
    python - <<'PYTHON'
import numpy as np
from sklearn.datasets import load_digits
pixels, labels = load_digits(return_X_y=True)
x, held_out = np.round(pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8), np.arange(len(labels)) % 5 == 4
np.savez("digits.npz", images_train=x[~held_out], labels_train=labels[~held_out],
         images_test=x[held_out], labels_test=labels[held_out])
PYTHON
    digits() { bytepixels train digits.npz --preset digits --flip no --run "$@"; }
    digits runs/digits
    digits runs/digits-hybrid --objective hybrid --variance learned
    digits runs/digits-vlb --objective vlb --variance learned --times importance
    digits runs/digits-edm --diffusion edm
    digits runs/digits-flow --diffusion flow --times logit_normal
    ;;
distances)
    python -m bench.distances "$1" -n "$2" --out "results/distances-$(basename "$1")"
    ;;
likelihood)
    for run in digits digits-hybrid digits-vlb; do
        bytepixels evaluate "runs/$run" --bits -n 128 --ode-steps 32 --probes 1
    done
    bytepixels evaluate runs/cifar10 --bits -n 48 --ode-steps 32 --probes 1
    bytepixels evaluate runs/digits --loss
    bytepixels evaluate runs/cifar10 --loss
    python -m bench.sheets results/bits-terms.png runs/{digits,digits-vlb,cifar10}/evaluate/bits.png
    cp runs/digits/evaluate/loss.png results/loss-digits.png
    cp runs/cifar10/evaluate/loss.png results/loss-cifar10.png
    ;;
edits)
    mkdir -p images
    unzip -oq "$2" '*.png' -d images
    tar -C images -xf "$1" test/horse test/ship test/automobile
    emoji=$(dirname "$(find images -name emoji_u1f600.png)")
    first() { find "images/test/$1" -type f | sort | sed -n "$2p"; }
    mask 128 128 "0 66 128 128" images/bottom.png
    mask 32 32 "16 0 32 32" images/right.png
    edits runs/emoji "$emoji/emoji_u1f600.png" images/bottom.png "$emoji/emoji_u1f431.png" \
        "$emoji/emoji_u1f34e.png" "$emoji/emoji_u1f34b.png" "$emoji/emoji_u1f431.png"
    edits runs/cifar10 "$(first horse 1)" images/right.png "$(first ship 1)" \
        "$(first ship 1)" "$(first automobile 1)" "$(first horse 1)"
    ;;
guidance)
    for run in cifar10 digits; do
        for scale in 1 2 4; do
            bytepixels sample "runs/$run" -n 40 --sampler auto --steps 20 --guidance $scale --out "runs/$run/guidance-$scale"
        done
        python -m bench.sheets "results/$run-guidance-1-2-4.png" runs/$run/guidance-{1,2,4}/grid.png
    done
    ;;
*)
    echo "what: train, digits, distances, likelihood, edits or guidance; got $what" >&2
    exit 2
    ;;
esac
