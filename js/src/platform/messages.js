// What a page and its worker say to each other.

/**
 * @typedef {object} Question
 * @property {number} id
 * @property {string} method
 * @property {any[]} args
 */

/**
 * @typedef {object} Failure
 * @property {import("../errors.js").ErrorCode} code
 * @property {string} message
 */

/**
 * @typedef {object} Answer
 * @property {number} id
 * @property {any} [value]
 * @property {Failure} [error]
 */

/**
 * @typedef {object} WorkerHandle
 * @property {(message: Question) => void} post
 * @property {() => void} stop
 */

export {};
