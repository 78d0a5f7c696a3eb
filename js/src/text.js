// Texts to token ids with offsets in the user's own string.
//
// The kept library (@huggingface/tokenizers) reads tokenizer.json, looks up pieces and adds the special tokens. It gives
// no offsets, and follows the engine's Unicode tables; so normalisation and words are walked here, where every character
// keeps its place.

import { Tokenizer } from "@huggingface/tokenizers";

import { words } from "./bert.js";
import { RekdEdgeError } from "./errors.js";

/** A text is cut to this many code points per allowed token before it is tokenised, as in Python. */
const CHARACTERS_PER_TOKEN = 256;

/**
 * One tokenised text; every list has one entry a position, special tokens included.
 *
 * @typedef {object} EncodedText
 * @property {number[]} ids
 * @property {string[]} tokens
 * @property {[number, number][]} offsets start and end in code points of the text
 * @property {boolean[]} feature false for the special tokens that the tokenizer itself adds
 * @property {boolean} truncated the end of the text was cut
 */

/**
 * @typedef {object} Piece
 * @property {string} token
 * @property {number} start
 * @property {number} end
 */

/** The tokenizer of a bundle. */
export class TextTokenizer {
  /**
   * @param {any} document tokenizer.json
   * @param {number} maxLength positions, special tokens included
   */
  constructor(document, maxLength) {
    const added = document.added_tokens ?? [];
    if (added.some((/** @type {any} */ token) => !token.special)) {
      throw unsupported("it adds words of its own to the vocabulary");
    }
    // Special tokens are looked up in the text otherwise, where "[SEP]" is text.
    this.library = new Tokenizer({ ...document, added_tokens: [], normalizer: null }, {});
    this.document = document;
    this.cut = this.#cutter();

    const named = specialIds(document.post_processor);
    for (const token of added) if (!named.has(token.content)) named.set(token.content, token.id);
    const marker = "\0";
    const framed = this.library.post_processor?.([marker], null, true).tokens ?? [marker];
    const place = framed.indexOf(marker);
    /** @param {string} token */
    const special = (token) => ({ token, id: named.get(token) ?? this.#id(token) });
    /** @type {{ token: string, id: number }[]} */
    this.before = framed.slice(0, place).map(special);
    /** @type {{ token: string, id: number }[]} */
    this.after = framed.slice(place + 1).map(special);

    this.room = maxLength - this.before.length - this.after.length;
    this.longest = maxLength * CHARACTERS_PER_TOKEN;
    if (this.room < 1) throw new RekdEdgeError("schema", `max_length ${maxLength} leaves no room for text.`);
    this.specials = new Set([...this.before, ...this.after].map((each) => each.id));
  }

  /**
   * Tokenise a text.
   *
   * @param {string} text
   * @returns {EncodedText}
   */
  encode(text) {
    const whole = [...text];
    const codePoints = whole.slice(0, this.longest).map((each) => (isSurrogate(each) ? "\ufffd" : each));

    /** @type {Piece[]} */
    const pieces = [];
    let more = false;
    for (const piece of this.cut(codePoints)) {
      if (pieces.length === this.room) {
        more = true;
        break;
      }
      pieces.push(piece);
    }

    const ids = pieces.map((piece) => this.#id(piece.token));
    const [before, after] = [this.before, this.after];
    const frame = (/** @type {{ id: number }[]} */ tokens) => tokens.map(() => /** @type {[number, number]} */ ([0, 0]));
    const all = [...before.map(({ id }) => id), ...ids, ...after.map(({ id }) => id)];
    return {
      ids: all,
      tokens: [...before, ...pieces, ...after].map((each) => each.token),
      offsets: [
        ...frame(before),
        ...pieces.map(({ start, end }) => /** @type {[number, number]} */ ([start, end])),
        ...frame(after),
      ],
      feature: all.map((id) => !this.specials.has(id)),
      truncated: more || whole.length > this.longest,
    };
  }

  /** @param {string} token */
  #id(token) {
    const model = this.library.model;
    return /** @type {number} */ (model?.tokens_to_ids.get(token) ?? model?.unk_token_id);
  }

  /** How a text becomes pieces: WordPiece after BERT's normaliser, or byte-level BPE. */
  #cutter() {
    const { model, normalizer, pre_tokenizer: splitter } = this.document;
    if (model.type === "WordPiece" && normalizer?.type === "BertNormalizer" && splitter?.type === "BertPreTokenizer") {
      return (/** @type {string[]} */ codePoints) => this.#wordPieces(codePoints);
    }
    if (model.type === "BPE" && normalizer == null && splitter?.type === "ByteLevel") {
      return (/** @type {string[]} */ codePoints) => this.#bytePieces(codePoints);
    }
    throw unsupported(`it is ${model.type} with ${normalizer?.type ?? "no normaliser"} and ${splitter?.type ?? "no words"}`);
  }

  /**
   * @param {string[]} codePoints
   * @returns {Generator<Piece>}
   */
  *#wordPieces(codePoints) {
    const model = /** @type {NonNullable<Tokenizer["model"]>} */ (this.library.model);
    const prefix = this.document.model.continuing_subword_prefix.length;
    const unknown = this.document.model.unk_token;

    for (const { characters, from } of words(codePoints, this.document.normalizer)) {
      const tokens = model.encode([characters.join("")]);
      let at = 0;
      for (const token of tokens) {
        const whole = tokens.length === 1 && token === unknown;
        const length = whole ? characters.length : [...token].length - (at ? prefix : 0);
        yield { token, start: from[at], end: from[at + length - 1] + 1 };
        at += length;
      }
    }
  }

  /**
   * @param {string[]} codePoints
   * @returns {Generator<Piece>}
   */
  *#bytePieces(codePoints) {
    const { library } = this;
    const { add_prefix_space: prefixed } = this.document.pre_tokenizer;
    const text = codePoints.join("");

    // the code point that every byte belongs to; -1 for the space that is put before a text
    const owner = prefixed && text && !text.startsWith(" ") ? [-1] : [];
    codePoints.forEach((each, i) => {
      const code = /** @type {number} */ (each.codePointAt(0));
      const bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      for (let byte = 0; byte < bytes; byte++) owner.push(i);
    });

    const trimmer = trimming(this.document.post_processor);
    let at = 0;
    for (const word of text ? /** @type {any} */ (library.pre_tokenizer)(text) : []) {
      for (const token of /** @type {any} */ (library.model)([word])) {
        const [first, last] = [at, at + token.length - 1];
        at += token.length;
        const [start, end] = [Math.max(owner[first], 0), owner[last] + 1];
        const isFirst = first === 0 || start === 0;
        yield trimmer ? trimmed(token, start, end, isFirst && trimmer.add_prefix_space) : { token, start, end };
      }
    }
  }
}

/**
 * The ids of the tokens that a post-processor adds.
 *
 * @param {any} processor
 * @returns {Map<string, number>}
 */
function specialIds(processor) {
  const found = new Map();
  for (const token of Object.values(processor?.special_tokens ?? {})) {
    token.tokens.forEach((/** @type {string} */ name, /** @type {number} */ i) => found.set(name, token.ids[i]));
  }
  for (const pair of [processor?.cls, processor?.sep]) if (pair) found.set(pair[0], pair[1]);
  for (const inner of processor?.processors ?? []) for (const [name, id] of specialIds(inner)) found.set(name, id);
  return found;
}

/**
 * The settings of a post-processor that takes spaces off offsets.
 *
 * @param {any} processor
 * @returns {{ add_prefix_space: boolean } | undefined}
 */
function trimming(processor) {
  if (processor?.trim_offsets) return processor;
  return processor?.processors?.map(trimming).find(Boolean);
}

/**
 * A piece without the spaces at its ends, of which the first may be one that was put before the text:
 * https://github.com/huggingface/tokenizers/blob/main/tokenizers/src/pre_tokenizers/byte_level.rs
 *
 * @param {string} token
 * @param {number} start
 * @param {number} end
 * @param {boolean} keepsOne
 * @returns {Piece}
 */
function trimmed(token, start, end, keepsOne) {
  const leading = /^\u0120*/.exec(token)?.[0].length ?? 0;
  const trailing = /\u0120*$/.exec(token)?.[0].length ?? 0;
  const from = Math.min(start + Math.max(0, leading - Number(keepsOne && leading > 0)), end);
  return { token, start: from, end: end >= trailing ? Math.max(end - trailing, from) : end };
}

/** @param {string} character */
function isSurrogate(character) {
  const code = character.charCodeAt(0);
  return character.length === 1 && code >= 0xd800 && code <= 0xdfff;
}

/** @param {string} reason */
function unsupported(reason) {
  return new RekdEdgeError(
    "unsupported",
    `This bundle's tokenizer is not read in JavaScript (${reason}); WordPiece and byte-level BPE are.`,
  );
}
