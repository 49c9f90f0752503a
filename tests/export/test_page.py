"""The page's own code, run by node: the noise is torch's, and the images are those of sample."""

import base64
import gzip
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import playwright
import pooch
import pytest
import torch

from bytepixels import InputError, Run
from bytepixels.export import page
from tests.export.test_export import KINDS, trained, with_random_weights
from tests.tiny import cli

NODE = Path(playwright.__file__).with_name("driver") / "node"


def node(code, tmp_path):
    """What a script prints, as JSON."""
    (tmp_path / "test.mjs").write_text(code)
    command = [NODE, "--liftoff-only", tmp_path / "test.mjs"]  # else it compiles the runtime once more before it ends
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def engine():
    return (page.FOLDER / "engine.js").read_text()


@pytest.mark.parametrize("size", [16, 40, 64, 3072])
@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**63 - 1])
def test_the_noise_of_a_seed_is_torchs(seed, size, tmp_path):
    """Also what is drawn after it, and of a size that 16 does not divide."""
    found = node(
        f"{engine()}; const g = new Generator('{seed}');"
        f"console.log(JSON.stringify([...g.normal({size}), ...g.normal({size})]))",
        tmp_path,
    )
    generator = torch.Generator().manual_seed(seed)
    expected = torch.cat([torch.empty(size).normal_(generator=generator) for _ in range(2)])
    np.testing.assert_allclose(found, expected, atol=2e-6)


def parts_of(html):
    """{id: text} of the page's scripts."""
    return dict(re.findall(r'<script type="[^"]*" id="(\w+)">(.*?)</script>', html, re.S))


def drawn(html, seeds, tmp_path, **asked):
    """What the page draws of these seeds, in node: uint8 [B, C, H, W]."""
    parts = parts_of(html)
    for name in ("runtime", "wasm", "network", "finish"):
        (tmp_path / name).write_bytes(gzip.decompress(base64.b64decode(parts[name])))
    (tmp_path / "about.json").write_text(parts["about"].replace("<\\/", "</"))
    code = f"""
import fs from "fs";
const file = (name) => fs.readFileSync({json.dumps(str(tmp_path))} + "/" + name);
const code = file("runtime") + {json.dumps(engine())} + "; return {{ ort, draw, read }}";
const {{ ort, draw, read }} = new Function(code)();
ort.env.wasm.wasmBinary = new Uint8Array(file("wasm")).buffer;
ort.env.wasm.numThreads = 1;
const open = (name) => ort.InferenceSession.create(new Uint8Array(file(name)), {{ executionProviders: ["wasm"] }});
const sessions = {{ network: await open("network"), finish: await open("finish") }};
const about = JSON.parse(file("about.json")), asked = {json.dumps(asked | {"seeds": [str(seed) for seed in seeds]})};
asked.texts = asked.prompts?.map((prompt) => read(about.text, prompt));
asked.sampler = about.samplers[asked.sampler];
const steps = [];
const images = await draw(ort, sessions, about, asked, (n) => steps.push(n));
console.log(JSON.stringify({{ images: [...images], steps, strange: asked.texts?.map((text) => text.strange) }}));
"""
    found = node(code, tmp_path)
    return np.array(found["images"], np.uint8), found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[:3] not in ("edm", "lea")])  # of which onnx is enough
def test_the_page_draws_what_sample_draws(kind, tmp_path, monkeypatch):
    path = trained(kind, tmp_path)
    model = with_random_weights(path, monkeypatch)
    guidance = 2.0 if "fresh" in kind or kind == "text" else 1.0
    sampler = KINDS[kind][1][1]
    flags = ["--sampler", sampler, "--steps", 3]  # the page's own guidance acts, though the run has none
    assert cli("export", path, "--to", "html", "--out", tmp_path / "out", *flags) == 0
    html = (tmp_path / "out" / "run.html").read_text()
    about = json.loads(parts_of(html)["about"])
    sampled = [len(one["t"]) for one in about["samplers"]]
    chosen = sampled.index({"heun": 5}.get(sampler, 4 if "map" in kind else 3))
    settings = model.settings(sampler=sampler, steps=4 if "map" in kind else 3, guidance=guidance)
    seeds = range(3, 6)
    expected = model.draw(settings, seeds).numpy()
    labels = [seed % 10 for seed in seeds] if about["classes"] else None
    asked = {"sampler": chosen, "guidance": guidance, "labels": labels}
    if about["text"]:
        captions = list(about["text"]["prompts"])
        asked["prompts"] = [captions[seed % len(captions)] for seed in seeds]
    images, found = drawn(html, seeds, tmp_path, **asked)
    assert np.abs(images.reshape(expected.shape).astype(int) - expected).max() <= 2  # weights are kept in 16 bits
    assert expected.std() > 10
    assert found["steps"] == list(range(1, sampled[chosen] + 1))
    if about["text"]:  # words by themselves say what they say in a caption, and strange ones are named
        words = asked["prompts"][0].split()
        assert {word: about["text"]["words"][word] for word in words}
        asked["prompts"] = [f"{prompt.upper()} zzxqy" for prompt in asked["prompts"]]
        again, found = drawn(html, seeds, tmp_path, **asked)
        assert np.array_equal(again, images)
        assert found["strange"] == [["zzxqy"]] * 3


def test_nothing_is_fetched_and_what_is_written_in_it_is_text(tmp_path, monkeypatch):
    folder = Run("digits").export("html", out=tmp_path, steps=5)
    html = (folder / "digits.html").read_text()
    own = re.sub(r'<script type="text/plain".*?</script>', "", html, flags=re.S)
    assert re.findall(r'(?:src|href)="(?!data:|#)', own) == []
    assert "default-src 'none'" in own
    assert "Permission is hereby granted, free of charge" in own  # the runtime's licence
    assert page.in_script("</script><!-- x") == "<\\/script><\\!-- x"


def test_a_runtime_that_cannot_be_had_is_named_with_the_place_for_it(monkeypatch, tmp_path):
    def refused(*arguments, **settings):
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", refused)
    with pytest.raises(InputError, match=r"needs https://registry.npmjs.org/.*33 MB, once.*put it at .*\.tgz"):
        page.runtime_files()
    with pytest.raises(InputError, match="is not what it was: it exports a"):
        page.as_script("export{x as a};")
