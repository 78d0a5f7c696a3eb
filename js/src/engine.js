// The bundle at work, on the thread that it is opened on. The worker holds one; `{ worker: false }` uses it directly.
//
//   texts ── tokens ──► ids, attention ──┐
//                                        ├──► graph ──► logits, mask, margins ──► predictions
//   images ─ resize ──► pixel_values ────┘

import { openSession, Tensor } from "#platform";

import { readBundle } from "./bundle.js";
import { RekdEdgeError } from "./errors.js";
import { modelPixels, normalise } from "./image.js";
import { classMask, codeUnitStarts, decision, mergeSpans } from "./prediction.js";
import { TextTokenizer } from "./text.js";

/** @typedef {import("./image.js").Pixels} Pixels */
/** @typedef {import("./text.js").EncodedText} EncodedText */
/** @typedef {import("./prediction.js").TextPrediction} TextPrediction */
/** @typedef {import("./prediction.js").ImagePrediction} ImagePrediction */
/** @typedef {import("onnxruntime-common").InferenceSession} Session */
/** @typedef {import("onnxruntime-common").Tensor} OutputTensor */

/**
 * @typedef {object} PredictOptions
 * @property {number} [batchSize] rows that are run together, 32 by default; answers do not depend on it
 * @property {"utf16" | "codepoint"} [offsets] what offsets count: the units of JavaScript strings, so that
 *   `text.slice(start, end)` is the span (default), or code points as in Python
 * @property {boolean} [truncate] cut texts that are too long (default), or throw
 */

/** How much of a batch may be padding. */
const PADDING = 0.1;
const OUTPUTS = ["logits", "rationale_mask", "selection_margin"];

/** An open bundle. */
export class Engine {
  /**
   * @param {import("./bundle.js").Bundle} bundle
   * @param {Session} session
   */
  constructor(bundle, session) {
    const { manifest, tokenizer } = bundle;
    this.manifest = manifest;
    this.session = session;
    this.tokenizer = manifest.text && new TextTokenizer(tokenizer, manifest.text.max_length);
    const scored = manifest.graph?.outputs.some((output) => output.name === "rationale_scores");
    this.outputs = scored ? [...OUTPUTS, "rationale_scores"] : OUTPUTS;

    const missing = this.outputs.filter((name) => !session.outputNames.includes(name));
    if (missing.length) throw new RekdEdgeError("schema", `model.onnx has no output ${missing[0]}; export the run again.`);
  }

  /**
   * Open a bundle.
   *
   * @param {import("./bundle.js").ReadFile} read
   * @param {string} place
   * @param {{ verify?: boolean, threads?: number }} options
   */
  static async open(read, place, options) {
    const bundle = await readBundle(read, place, options.verify ?? true);
    return new Engine(bundle, await openSession(bundle.graph, options.threads ?? 1));
  }

  /**
   * Predict texts or images, answered in the same order.
   *
   * @param {unknown[]} inputs
   * @param {PredictOptions} [options]
   * @returns {Promise<(TextPrediction | ImagePrediction)[]>}
   */
  async predict(inputs, options = {}) {
    const size = options.batchSize ?? 32;
    if (!Number.isInteger(size) || size < 1) {
      throw new RekdEdgeError("input", `batchSize is ${size}; give a whole number of 1 or more.`);
    }
    return this.tokenizer ? this.#predictTexts(inputs, size, options) : this.#predictImages(inputs, size);
  }

  /**
   * Tokenise texts as the graph will see them; offsets count code points.
   *
   * @param {unknown[]} texts
   * @returns {EncodedText[]}
   */
  encode(texts) {
    const { tokenizer } = this;
    if (!tokenizer) throw new RekdEdgeError("input", "This bundle classifies images, not texts; give it images.");

    return texts.map((text) => {
      if (typeof text === "string") return tokenizer.encode(text);
      throw new RekdEdgeError("input", `This input is ${kind(text)}, not a text; give a string or an array of strings.`);
    });
  }

  /**
   * @param {unknown[]} texts
   * @param {number} size
   * @param {PredictOptions} options
   */
  async #predictTexts(texts, size, options) {
    const rows = this.encode(texts);
    if (options.truncate === false && rows.some((row) => row.truncated)) {
      const longest = this.manifest.text?.max_length;
      throw new RekdEdgeError("input", `A text is too long: this bundle reads ${longest} tokens; shorten it.`);
    }

    /** @type {TextPrediction[]} */
    const predictions = new Array(rows.length);
    for (const batch of batchesOfLikeLength(rows, size)) {
      const width = Math.max(1, ...batch.map((i) => rows[i].ids.length));
      const outputs = await this.#run(this.#padded(batch.map((i) => rows[i]), width));
      batch.forEach((i, row) => {
        const text = /** @type {string} */ (texts[i]);
        predictions[i] = this.#textPrediction(text, rows[i], outputs, row, width, options.offsets ?? "utf16");
      });
    }
    return predictions;
  }

  /**
   * @param {unknown[]} images
   * @param {number} size
   */
  async #predictImages(images, size) {
    const settings = /** @type {import("./image.js").ImageSettings} */ (this.manifest.image);
    const { height, width, patch_size: patch } = settings;
    const columns = width / patch;
    const features = columns * (height / patch);
    const wrong = images.find((image) => typeof image === "string");
    if (wrong !== undefined) {
      throw new RekdEdgeError("input", "This bundle classifies images, not texts; give it { data, width, height }.");
    }

    /** @type {ImagePrediction[]} */
    const predictions = [];
    for (let start = 0; start < images.length; start += size) {
      const batch = images.slice(start, start + size);
      const values = new Float32Array(batch.length * 3 * height * width);
      batch.forEach((image, i) => {
        const pixels = modelPixels(/** @type {Pixels} */ (image), settings);
        normalise(pixels, settings, values.subarray(i * 3 * height * width, (i + 1) * 3 * height * width));
      });

      const outputs = await this.#run({ pixel_values: new Tensor("float32", values, [batch.length, 3, height, width]) });
      batch.forEach((_, row) => {
        const { logits, mask, margins } = this.#rowOf(outputs, row, features);
        predictions.push({
          ...decision(logits, this.manifest.labels),
          mask: Array.from({ length: height / patch }, (_, y) => mask.slice(y * columns, (y + 1) * columns)),
          patch_size: patch,
          rationale_ratio: ratio(mask),
          margins,
        });
      });
    }
    return predictions;
  }

  /**
   * @param {EncodedText[]} rows
   * @param {number} width
   */
  #padded(rows, width) {
    const { pad_token_id: pad } = /** @type {import("./bundle.js").TextSettings} */ (this.manifest.text);
    const ids = new BigInt64Array(rows.length * width).fill(BigInt(pad));
    const attention = new BigInt64Array(rows.length * width);
    rows.forEach((row, i) => {
      row.ids.forEach((id, position) => (ids[i * width + position] = BigInt(id)));
      attention.fill(1n, i * width, i * width + row.ids.length);
    });

    const shape = [rows.length, width];
    return { input_ids: new Tensor("int64", ids, shape), attention_mask: new Tensor("int64", attention, shape) };
  }

  /**
   * @param {Record<string, any>} feeds
   * @returns {Promise<Record<string, OutputTensor>>}
   */
  async #run(feeds) {
    const outputs = /** @type {Record<string, OutputTensor>} */ (await this.session.run(feeds, this.outputs));
    const logits = /** @type {Float32Array} */ (outputs.logits.data);
    if (!logits.every(Number.isFinite)) {
      throw new RekdEdgeError("failed", "The model returned numbers that are not finite; train or export it again.");
    }
    return outputs;
  }

  /**
   * One row of the outputs.
   *
   * @param {Record<string, OutputTensor>} outputs
   * @param {number} row
   * @param {number} width of the feature axis
   */
  #rowOf(outputs, row, width) {
    const classes = this.manifest.labels.length;
    /**
     * @param {string} name
     * @param {number} size
     */
    const slice = (name, size) =>
      Array.from(/** @type {Float32Array} */ (outputs[name].data).subarray(row * size, (row + 1) * size));
    const scores = this.outputs.includes("rationale_scores") ? slice("rationale_scores", width * classes) : undefined;
    return {
      logits: slice("logits", classes),
      mask: slice("rationale_mask", width),
      margins: slice("selection_margin", width),
      scores,
    };
  }

  /**
   * @param {string} text
   * @param {EncodedText} encoded
   * @param {Record<string, OutputTensor>} outputs
   * @param {number} row
   * @param {number} width
   * @param {"utf16" | "codepoint"} unit
   * @returns {TextPrediction}
   */
  #textPrediction(text, encoded, outputs, row, width, unit) {
    const { labels, class_thresholds: thresholds = [] } = this.manifest;
    const given = this.#rowOf(outputs, row, width);
    const features = encoded.feature.flatMap((feature, i) => (feature ? [i] : []));
    const mask = features.map((i) => given.mask[i]);
    const offsets = features.map((i) => encoded.offsets[i]);
    const starts = codeUnitStarts(text);

    /** @param {number[]} selected */
    const spans = (selected) =>
      mergeSpans(offsets, selected).map(([start, end]) => {
        const [from, to] = [starts[start], starts[end]];
        const words = text.slice(from, to);
        return unit === "utf16" ? { start: from, end: to, text: words } : { start, end, text: words };
      });

    const decided = decision(given.logits, labels);
    const rationale = spans(mask);
    /** @type {TextPrediction} */
    const prediction = {
      ...decided,
      rationale,
      mask,
      tokens: features.map((i) => encoded.tokens[i]),
      rationale_ratio: ratio(mask),
      truncated: encoded.truncated,
      margins: features.map((i) => given.margins[i]),
    };

    const { scores } = given;
    if (scores) {
      const byClass = labels.map((label, column) => {
        const values = features.map((i) => scores[i * labels.length + column]);
        const shown = label === decided.label ? rationale : spans(classMask(values, thresholds[column]));
        return [label, { rationale: shown, scores: values }];
      });
      prediction.class_rationales = Object.fromEntries(byClass);
    }
    return prediction;
  }
}

/**
 * Rows by length, in batches of which at most a tenth is padding.
 *
 * @param {EncodedText[]} rows
 * @param {number} size
 * @returns {number[][]}
 */
function batchesOfLikeLength(rows, size) {
  /** @type {number[][]} */
  const batches = [];
  let held = 0; // positions of the last batch that are no padding
  const order = rows.map((_, i) => i).sort((a, b) => rows[a].ids.length - rows[b].ids.length || a - b);

  for (const i of order) {
    const { length } = rows[i].ids;
    const last = batches.at(-1);
    if (last && last.length < size && held + length >= (1 - PADDING) * length * (last.length + 1)) {
      last.push(i);
      held += length;
    } else {
      batches.push([i]);
      held = length;
    }
  }
  return batches;
}

/** @param {number[]} mask */
function ratio(mask) {
  return mask.length ? mask.reduce((sum, value) => sum + value, 0) / mask.length : 0;
}

/** @param {unknown} value */
function kind(value) {
  if (value === null || value === undefined) return String(value);
  return Array.isArray(value) ? "an array" : value instanceof Object ? "an object" : `a ${typeof value}`;
}
