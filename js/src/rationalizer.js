import { locate, readerOf, startWorker } from "#platform";

import { Engine } from "./engine.js";
import { asOurs, RekdEdgeError } from "./errors.js";

/** @typedef {import("./engine.js").PredictOptions} PredictOptions */
/** @typedef {import("./prediction.js").TextPrediction} TextPrediction */
/** @typedef {import("./prediction.js").ImagePrediction} ImagePrediction */
/** @typedef {import("./text.js").EncodedText} EncodedText */
/** @typedef {import("./bundle.js").Manifest} Manifest */
/** @typedef {import("./image.js").Pixels} Pixels */

/**
 * @typedef {object} LoadOptions
 * @property {boolean} [verify] compute the SHA-256 of every file (default); sizes are checked in any case
 * @property {number} [threads] of ONNX Runtime, 1 by default; in browsers more need cross-origin isolation
 * @property {boolean} [worker] compute on a thread of its own (default), so that the page never waits
 */

/**
 * A bundle, open for prediction.
 *
 * @example
 * const rationalizer = await Rationalizer.load("bundle/");
 * const { label, rationale } = await rationalizer.predict("An absolute delight.");
 */
export class Rationalizer {
  /** @type {import("#platform").WorkerHandle | undefined} */
  #worker;
  /** @type {Engine | undefined} */
  #engine;
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void }>} */
  #waiting = new Map();
  #asked = 0;
  /** @type {Manifest | undefined} */
  #manifest;
  /** @type {RekdEdgeError | undefined} */
  #ended;

  /**
   * Open a bundle.
   *
   * @param {string | URL} urlOrFolder an address; in Node a folder too
   * @param {LoadOptions} [options]
   * @returns {Promise<Rationalizer>}
   * @throws {RekdEdgeError} a file is missing or changed, or the bundle is invalid, too new, or not readable here
   */
  static async load(urlOrFolder, options = {}) {
    if (typeof urlOrFolder !== "string" && !(urlOrFolder instanceof URL)) {
      throw new RekdEdgeError("input", "Rationalizer.load takes the address or the folder of a bundle.");
    }
    const { threads = 1 } = options;
    if (!Number.isInteger(threads) || threads < 1) {
      throw new RekdEdgeError("input", `threads is ${threads}; give a whole number of 1 or more.`);
    }

    const source = locate(urlOrFolder);
    const opened = new Rationalizer();
    try {
      if (options.worker === false) {
        opened.#engine = await Engine.open(readerOf(source), source, options);
        opened.#manifest = opened.#engine.manifest;
      } else {
        opened.#start();
        opened.#manifest = await opened.#ask("open", [source, { verify: options.verify, threads }]);
      }
      return opened;
    } catch (error) {
      opened.close();
      throw asOurs(error, `${source} could not be opened`);
    }
  }

  /** The bundle's manifest. */
  get manifest() {
    return /** @type {Manifest} */ (this.#manifest);
  }

  /**
   * Predict one text or image, or an array of them (answered in the same order).
   *
   * @overload
   * @param {string} input
   * @param {PredictOptions} [options]
   * @returns {Promise<TextPrediction>}
   *
   * @overload
   * @param {Pixels} input
   * @param {PredictOptions} [options]
   * @returns {Promise<ImagePrediction>}
   *
   * @overload
   * @param {string[]} input
   * @param {PredictOptions} [options]
   * @returns {Promise<TextPrediction[]>}
   *
   * @overload
   * @param {Pixels[]} input
   * @param {PredictOptions} [options]
   * @returns {Promise<ImagePrediction[]>}
   *
   * @param {string | Pixels | (string | Pixels)[]} input
   * @param {PredictOptions} [options]
   * @returns {Promise<any>}
   * @throws {RekdEdgeError} an input is of the wrong kind, or the graph cannot be run
   */
  async predict(input, options = {}) {
    const many = Array.isArray(input);
    const inputs = many ? input : [input];
    const found = await this.#call("predict", [inputs, options]);
    return many ? found : found[0];
  }

  /**
   * The labels that may be right: the true one is among them as often as `manifest.conformal.coverage` says.
   * One label is an answer; several, or none, mean "I don't know".
   *
   * @param {TextPrediction | ImagePrediction} prediction
   * @returns {string[]}
   * @throws {RekdEdgeError} the bundle states no coverage
   */
  possibleLabels(prediction) {
    const { conformal } = this.manifest;
    if (!conformal) throw new RekdEdgeError("input", "This bundle states no coverage; export it from a run that set rows apart.");
    return this.manifest.labels.filter((label) => prediction.scores[label] >= conformal.threshold);
  }

  /**
   * Tokenise texts as the graph sees them; offsets count code points.
   *
   * @param {string[]} texts
   * @returns {Promise<EncodedText[]>}
   */
  async encode(texts) {
    return this.#call("encode", [texts]);
  }

  /** End the worker. Calls that still wait are rejected. */
  close() {
    this.#end(new RekdEdgeError("failed", "The rationalizer was closed; load the bundle again."));
  }

  /**
   * @param {"predict" | "encode"} method
   * @param {any[]} args
   */
  async #call(method, args) {
    if (this.#ended) throw this.#ended;
    if (!this.#engine) return this.#ask(method, args);
    try {
      return await (method === "encode" ? this.#engine.encode(args[0]) : this.#engine.predict(args[0], args[1]));
    } catch (error) {
      throw asOurs(error, "The prediction failed");
    }
  }

  #start() {
    this.#worker = startWorker(
      ({ id, value, error }) => {
        const waiting = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error) waiting?.reject(new RekdEdgeError(error.code, error.message));
        else waiting?.resolve(value);
      },
      (reason) => this.#end(new RekdEdgeError("failed", `The worker stopped (${reason}); load the bundle again.`)),
    );
  }

  /**
   * @param {string} method
   * @param {any[]} args
   * @returns {Promise<any>}
   */
  #ask(method, args) {
    const id = this.#asked++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      try {
        /** @type {import("#platform").WorkerHandle} */ (this.#worker).post({ id, method, args });
      } catch (error) {
        this.#waiting.delete(id);
        reject(new RekdEdgeError("input", "The input cannot be sent to the worker; give strings or { data, width, height }.", error));
      }
    });
  }

  /** @param {RekdEdgeError} reason */
  #end(reason) {
    this.#ended ??= reason;
    this.#engine = undefined;
    this.#worker?.stop();
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
  }
}
