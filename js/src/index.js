/** @typedef {import("./bundle.js").Manifest} Manifest */
/** @typedef {import("./engine.js").PredictOptions} PredictOptions */
/** @typedef {import("./errors.js").ErrorCode} ErrorCode */
/** @typedef {import("./image.js").Pixels} Pixels */
/** @typedef {import("./prediction.js").ImagePrediction} ImagePrediction */
/** @typedef {import("./prediction.js").TextPrediction} TextPrediction */
/** @typedef {import("./prediction.js").Span} Span */
/** @typedef {import("./rationalizer.js").LoadOptions} LoadOptions */
/** @typedef {import("./text.js").EncodedText} EncodedText */

export { RekdEdgeError } from "./errors.js";
export { Rationalizer } from "./rationalizer.js";
