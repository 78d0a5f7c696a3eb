export type Question = {
    id: number;
    method: string;
    args: any[];
};
export type Failure = {
    code: import("../errors.js").ErrorCode;
    message: string;
};
export type Answer = {
    id: number;
    value?: any;
    error?: Failure;
};
export type WorkerHandle = {
    post: (message: Question) => void;
    stop: () => void;
};
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
