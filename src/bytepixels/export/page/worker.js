// The page's worker: it loads the model and draws, so that the page stays alive. The runtime, as `ort`, and engine.js stand before it.

let sessions, about, wanted = 0;

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "open") await open(data);
    if (data.kind === "stop") wanted++;
    if (data.kind === "draw") await drawAll(data);
  } catch (error) {
    self.postMessage({ kind: "failed", text: String(error.message ?? error) });
  }
};

async function open(data) {
  ort.env.wasm.wasmBinary = data.wasm;
  ort.env.wasm.numThreads = 1; // more need headers that a file from the disk does not have
  ort.env.logLevel = "error";
  about = data.about;
  const gpu = self.navigator?.gpu ? await self.navigator.gpu.requestAdapter().catch(() => null) : null;
  const providers = gpu ? ["webgpu", "wasm"] : ["wasm"];
  const create = (bytes, where) => ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: where });
  sessions = { network: await create(data.network, providers), finish: await create(data.finish, ["wasm"]) };
  self.postMessage({ kind: "ready", where: gpu ? "WebGPU" : "WebAssembly" });
}

async function drawAll(data) {
  const mine = ++wanted;
  const began = performance.now(), all = data.prompts?.map((prompt) => read(about.text, prompt));
  const strange = [...new Set(all?.flatMap((text) => text.strange))];
  if (strange.length) self.postMessage({ kind: "strange", words: strange });
  for (let k = 0; k < data.seeds.length; k += data.together) {
    const seeds = data.seeds.slice(k, k + data.together);
    const told = async (done, of, images) => {
      self.postMessage({ kind: "step", mine: data.mine, at: k, count: seeds.length, done, of, images });
      await new Promise((resolve) => setTimeout(resolve)); // lets a stop come in
      return mine === wanted;
    };
    const [labels, texts] = [data.labels, all].map((own) => own?.slice(k, k + data.together));
    const images = await draw(ort, sessions, about, { ...data, seeds, labels, texts }, told);
    if (images === null || mine !== wanted) return;
    self.postMessage({ kind: "images", mine: data.mine, at: k, count: seeds.length, images });
  }
  self.postMessage({ kind: "done", mine: data.mine, seconds: (performance.now() - began) / 1000 });
}
