// The page: its controls, and the images as they come out of the worker.

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const [channels, height, width] = about.images;
const TOGETHER = 4; // images drawn at once
let turn = 0, finished = 0, total = 0, shown = [];

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
  $(id).remove(); // which frees memory
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

let worker;

async function open() {
  const [runtime, wasm, network, finish] = await Promise.all(["runtime", "wasm", "network", "finish"].map(unpacked));
  const code = new Blob([runtime, "\n", $("worker").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(code));
  worker.onmessage = ({ data }) => heard[data.kind](data);
  worker.onerror = (event) => heard.failed({ text: event.message || "the worker could not start" });
  worker.postMessage({ kind: "open", wasm, network, finish, about }, [wasm, network, finish]);
}

const heard = {
  ready({ where }) {
    $("draw").disabled = $("others").disabled = false;
    $("said").textContent = `Ready. Images are computed with ${where}.`;
    document.body.dataset.state = "ready";
    begin();
  },
  strange({ words }) {
    $("said").textContent = `Drawing. This file does not know the words: ${words.join(", ")}.`;
  },
  step(data) {
    if (data.mine !== turn) return;
    $("bar").value = (data.at + (data.count * data.done) / data.of) / total;
    if (data.images) show(data);
  },
  images(data) {
    if (data.mine !== turn) return;
    show(data);
    finished = data.at + data.count;
    $("bar").value = finished / total;
  },
  done(data) {
    if (data.mine !== turn) return;
    const each = data.seconds / total;
    $("said").textContent = `${total} ${total === 1 ? "image" : "images"}, ${each.toFixed(each < 1 ? 2 : 1)} s each.`;
    idle();
  },
  failed({ text }) {
    $("said").textContent = `This did not work: ${text}`;
    document.body.dataset.state = "failed";
    idle();
  },
};

function idle() {
  $("stop").hidden = true;
  $("draw").hidden = false;
  $("save").disabled = finished === 0;
  if (document.body.dataset.state === "drawing") document.body.dataset.state = "done";
}

function show({ at, count, images }) {
  const each = images.length / count, plane = height * width;
  for (let k = 0; k < count; k++) {
    const data = new ImageData(width, height);
    for (let i = 0; i < plane; i++) {
      const pixel = (c) => images[k * each + Math.min(c, channels - 1) * plane + i];
      const grey = channels < 3;
      data.data.set([pixel(0), grey ? pixel(0) : pixel(1), grey ? pixel(0) : pixel(2)], 4 * i);
      data.data[4 * i + 3] = channels % 2 ? 255 : images[k * each + (channels - 1) * plane + i];
    }
    shown[at + k].canvas.getContext("2d").putImageData(data, 0, 0);
  }
}

function begin() {
  const count = Number($("count").value), first = BigInt($("seed").value || 0);
  turn++;
  finished = 0;
  total = count;
  $("images").replaceChildren();
  shown = Array.from({ length: count }, (_, k) => slot(first + BigInt(k)));
  $("draw").hidden = true;
  $("stop").hidden = false;
  $("save").disabled = true;
  $("said").textContent = "Drawing …";
  document.body.dataset.state = "drawing";
  const asked = { kind: "draw", mine: turn, together: TOGETHER, sampler: about.samplers[$("steps").value] };
  asked.guidance = $("guidance") ? Number($("guidance").value) : 1;
  asked.seeds = shown.map((one) => one.seed.toString());
  const inTurn = (names, seed) => Number(seed % BigInt(names.length));
  if ($("prompt")) {
    const captions = Object.keys(about.text.prompts);
    asked.prompts = shown.map((one) => $("prompt").value.trim() || captions[inTurn(captions, one.seed)]);
    asked.prompts.forEach((prompt, k) => shown[k].name(prompt));
  }
  if ($("label")) {
    const own = (seed) => ($("prompt") ? null : inTurn(about.classes, seed)); // as bytepixels sample
    asked.labels = shown.map((one) => ($("label").value === "" ? own(one.seed) : Number($("label").value)));
    asked.labels.forEach((label, k) => label !== null && shown[k].name(about.classes[label]));
  }
  worker.postMessage(asked);
}

function slot(seed) {
  const item = document.createElement("li"), button = document.createElement("button");
  const canvas = document.createElement("canvas"), caption = document.createElement("span");
  Object.assign(canvas, { width, height });
  caption.textContent = `seed ${seed}`;
  button.type = "button";
  button.title = `Save the image of seed ${seed}`;
  button.append(canvas, caption);
  button.onclick = () => save({ canvas, seed });
  item.append(button);
  $("images").append(item);
  return { canvas, seed, name: (what) => (caption.textContent = `${what}, seed ${seed}`) };
}

function save({ canvas, seed }) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `seed-${seed}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  if (!$("draw").disabled) begin();
};
$("others").onclick = () => {
  $("seed").value = (BigInt($("seed").value || 0) + BigInt($("count").value)).toString();
  begin();
};
$("stop").onclick = () => {
  turn++;
  worker.postMessage({ kind: "stop" });
  $("said").textContent = "Stopped.";
  idle();
};
$("save").onclick = () => shown.slice(0, finished).forEach(save);
if ($("guidance")) $("guidance").oninput = () => ($("scale").value = $("guidance").value);
open().catch((error) => heard.failed({ text: error.message }));
