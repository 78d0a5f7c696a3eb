export type PredictOptions = import("./engine.js").PredictOptions;
export type TextPrediction = import("./prediction.js").TextPrediction;
export type ImagePrediction = import("./prediction.js").ImagePrediction;
export type EncodedText = import("./text.js").EncodedText;
export type Manifest = import("./bundle.js").Manifest;
export type Pixels = import("./image.js").Pixels;
export type LoadOptions = {
    /**
     * compute the SHA-256 of every file (default); sizes are checked in any case
     */
    verify?: boolean;
    /**
     * of ONNX Runtime, 1 by default; in browsers more need cross-origin isolation
     */
    threads?: number;
    /**
     * compute on a thread of its own (default), so that the page never waits
     */
    worker?: boolean;
};
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
export declare class Rationalizer {
    #private;
    /**
     * Open a bundle.
     *
     * @param {string | URL} urlOrFolder an address; in Node a folder too
     * @param {LoadOptions} [options]
     * @returns {Promise<Rationalizer>}
     * @throws {RekdEdgeError} a file is missing or changed, or the bundle is invalid, too new, or not readable here
     */
    static load(urlOrFolder: string | URL, options?: LoadOptions): Promise<Rationalizer>;
    /** The bundle's manifest. */
    get manifest(): Manifest;
    predict(input: string, options?: PredictOptions): Promise<TextPrediction>;
    predict(input: Pixels, options?: PredictOptions): Promise<ImagePrediction>;
    predict(input: string[], options?: PredictOptions): Promise<TextPrediction[]>;
    predict(input: Pixels[], options?: PredictOptions): Promise<ImagePrediction[]>;
    /**
     * The labels that may be right: the true one is among them as often as `manifest.conformal.coverage` says.
     * One label is an answer; several, or none, mean "I don't know".
     *
     * @param {TextPrediction | ImagePrediction} prediction
     * @returns {string[]}
     * @throws {RekdEdgeError} the bundle states no coverage
     */
    possibleLabels(prediction: TextPrediction | ImagePrediction): string[];
    /**
     * Tokenise texts as the graph sees them; offsets count code points.
     *
     * @param {string[]} texts
     * @returns {Promise<EncodedText[]>}
     */
    encode(texts: string[]): Promise<EncodedText[]>;
    /** End the worker. Calls that still wait are rejected. */
    close(): void;
}
