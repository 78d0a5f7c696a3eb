/** @typedef {import("./bundle.js").Manifest} Manifest */
/** @typedef {import("./engine.js").PredictOptions} PredictOptions */
/** @typedef {import("./errors.js").ErrorCode} ErrorCode */
/** @typedef {import("./image.js").Pixels} Pixels */
/** @typedef {import("./prediction.js").ImagePrediction} ImagePrediction */
/** @typedef {import("./prediction.js").TextPrediction} TextPrediction */
/** @typedef {import("./prediction.js").Span} Span */
/** @typedef {import("./rationalizer.js").LoadOptions} LoadOptions */
/** @typedef {import("./text.js").EncodedText} EncodedText */
export type Manifest = import("./bundle.js").Manifest;
export type PredictOptions = import("./engine.js").PredictOptions;
export type ErrorCode = import("./errors.js").ErrorCode;
export type Pixels = import("./image.js").Pixels;
export type ImagePrediction = import("./prediction.js").ImagePrediction;
export type TextPrediction = import("./prediction.js").TextPrediction;
export type Span = import("./prediction.js").Span;
export type LoadOptions = import("./rationalizer.js").LoadOptions;
export type EncodedText = import("./text.js").EncodedText;
export { RekdEdgeError } from "./errors.js";
export { Rationalizer } from "./rationalizer.js";
