// Draws with an exported model: the noise of a seed as torch draws it, and a sampler that is a table of numbers.

// torch.Generator on the CPU: the Mersenne Twister of Matsumoto & Nishimura 1998, and normal numbers from it.
class Generator {
  constructor(seed) {
    const state = new Uint32Array(624);
    state[0] = Number(BigInt(seed) & 0xffffffffn);
    for (let k = 1; k < 624; k++) {
      const last = state[k - 1] ^ (state[k - 1] >>> 30);
      state[k] = Math.imul(1812433253, last) + k;
    }
    this.state = state;
    this.at = 624;
  }

  next() {
    const s = this.state;
    if (this.at === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (s[k] & 0x80000000) | (s[(k + 1) % 624] & 0x7fffffff);
        s[k] = s[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.at = 0;
    }
    let y = s[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  uniform() {
    return (this.next() & 0xffffff) / 0x1000000;
  }

  // Standard normal numbers, 16 at a time by Box & Muller 1958; the last 16 anew where the size is no multiple of 16.
  normal(size) {
    if (size < 16) throw new Error(`noise of ${size} numbers is drawn otherwise`);
    const found = Float32Array.from({ length: size }, () => this.uniform());
    for (let k = 0; k + 16 <= size; k += 16) sixteen(found, k);
    if (size % 16) {
      for (let k = size - 16; k < size; k++) found[k] = this.uniform();
      sixteen(found, size - 16);
    }
    return found;
  }
}

function sixteen(values, start) {
  for (let k = start; k < start + 8; k++) {
    const radius = Math.sqrt(-2 * Math.log(1 - values[k]));
    const angle = 2 * Math.PI * values[k + 8];
    values[k] = radius * Math.cos(angle);
    values[k + 8] = radius * Math.sin(angle);
  }
}

// The sum of the known arrays with the factors of a row.
function mixed(row, known, size) {
  const sum = new Float32Array(size);
  known.forEach((values, k) => {
    const factor = row[k];
    if (factor) for (let i = 0; i < size; i++) sum[i] += factor * values[i];
  });
  return sum;
}

function twice(values) {
  const both = new values.constructor(2 * values.length);
  both.set(values);
  both.set(values, values.length);
  return both;
}

// Draw the images of some seeds together. ort: onnxruntime. sessions: {network, finish}. about: model.json.
// asked: {seeds, sampler, guidance, labels: of each or null, texts: {vectors, width} of each}. onStep(done, of, images uint8 or null) sees each estimate.
// Returns uint8 [B, C, H, W], a flat array.
async function draw(ort, sessions, about, asked, onStep = () => true) {
  const { seeds, sampler, guidance } = asked;
  const batch = seeds.length;
  const each = about.x0.reduce((a, b) => a * b);
  const size = batch * each;
  const generators = seeds.map((seed) => new Generator(seed));
  const noise = () => {
    const all = new Float32Array(size);
    generators.forEach((generator, k) => all.set(generator.normal(each), k * each));
    return all;
  };
  const start = noise().map((value) => value * sampler.scale);
  const fresh = Array.from({ length: sampler.noises }, noise);
  const calls = sampler.t.length;
  const estimates = [];
  const known = () => [start, ...Array.from({ length: calls }, (_, k) => estimates[k] ?? []), ...fresh];
  for (let step = 0; step < calls; step++) {
    const x = mixed(sampler.rows[step], known(), size);
    const guided = guidance !== 1 && sampler.guided[step];
    const rows = guided ? 2 * batch : batch;
    const scaled = x.map((value) => value * sampler.c_in[step]);
    const fed = {
      x: new ort.Tensor("float32", guided ? twice(scaled) : scaled, [rows, ...about.x0]),
      t: new ort.Tensor("float32", new Float32Array(rows).fill(sampler.t[step]), [rows]),
    };
    if ("label" in about.network) {
      const none = BigInt(about.no_label);
      const labels = new BigInt64Array(rows).fill(none);
      asked.labels.forEach((label, k) => (labels[k] = label === null ? none : BigInt(label)));
      fed.label = new ort.Tensor("int64", labels, [rows]);
    }
    if ("vectors" in about.network) Object.assign(fed, told(ort, asked.texts, rows));
    if ("destination" in about.network) {
      fed.destination = new ort.Tensor("float32", new Float32Array(rows).fill(sampler.way[step]), [rows]);
    }
    const { prediction } = await sessions.network.run(fed);
    const output = prediction.data;
    const stride = output.length / rows; // a learned variance follows each prediction
    const x0 = new Float32Array(size);
    for (let k = 0; k < batch; k++) {
      for (let i = 0; i < each; i++) {
        let found = output[k * stride + i];
        if (guided) found += (guidance - 1) * (found - output[(k + batch) * stride + i]);
        x0[k * each + i] = sampler.c_skip[step] * x[k * each + i] + sampler.c_out[step] * found;
      }
    }
    if (sampler.clip) clip(x0, about, each);
    estimates.push(x0);
    const shown = about.pixels ? await finished(ort, sessions, about, x0, batch) : null;
    if ((await onStep(step + 1, calls, shown)) === false) return null;
  }
  return finished(ort, sessions, about, mixed(sampler.rows[calls], known(), size), batch);
}

// A prompt as the vectors of its words, those that the file has; strange: the others.
function read({ prompts, words, width, vectors }, prompt) {
  const spoken = prompt.toLowerCase().split(/\s+/).filter(Boolean);
  const ids = prompts[prompt] ?? spoken.flatMap((word) => words[word] ?? []);
  const bytes = atob(vectors);
  const number = (at) => full(bytes.charCodeAt(2 * at) | (bytes.charCodeAt(2 * at + 1) << 8));
  const found = ids.flatMap((id) => Array.from({ length: width }, (_, k) => number(id * width + k)));
  return { vectors: Float32Array.from(found), width, strange: prompts[prompt] ? [] : spoken.filter((w) => !words[w]) };
}

// A number of 16 bits.
function full(half) {
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

// The words of each image [B, L, D] and which there are [B, L]; the rows beyond have none, which guidance leads away from.
function told(ort, texts, rows) {
  const width = texts[0].width;
  const length = Math.max(1, ...texts.map((text) => text.vectors.length / width));
  const vectors = new Float32Array(rows * length * width), mask = new Uint8Array(rows * length);
  texts.forEach((text, k) => {
    vectors.set(text.vectors, k * length * width);
    mask.fill(1, k * length, k * length + text.vectors.length / width);
  });
  return {
    vectors: new ort.Tensor("float32", vectors, [rows, length, width]),
    mask: new ort.Tensor("bool", mask, [rows, length]),
  };
}

function clip(x0, about, each) {
  const plane = each / about.x0[0];
  x0.forEach((value, k) => {
    const channel = Math.floor((k % each) / plane);
    x0[k] = Math.min(Math.max(value, about.low[channel]), about.high[channel]);
  });
}

async function finished(ort, sessions, about, x0, batch) {
  const { images } = await sessions.finish.run({ x0: new ort.Tensor("float32", x0, [batch, ...about.x0]) });
  return images.data;
}
