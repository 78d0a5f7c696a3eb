// BERT's normaliser and word splitter with the place of every character, as the Rust library has them:
// https://github.com/huggingface/tokenizers/blob/main/tokenizers/src/normalizers/bert.rs
//
//   text ── normalise ──► characters, each with the code point that it came from ── words ──► runs of them

import { CHINESE, MARKS, PUNCTUATION, REMOVED, UNDECOMPOSED, WHITESPACE } from "./unicode.js";

const FLAG = { removed: 1, whitespace: 2, punctuation: 4, mark: 8, chinese: 16, undecomposed: 32 };

/** @type {Uint8Array | undefined} */
let table;

/** The properties of every code point as bits, made once. */
function properties() {
  if (table) return table;
  table = new Uint8Array(0x110000);

  const named = /** @type {[string, number][]} */ ([
    [REMOVED, FLAG.removed],
    [WHITESPACE, FLAG.whitespace],
    [PUNCTUATION, FLAG.punctuation],
    [MARKS, FLAG.mark],
    [CHINESE, FLAG.chinese],
    [UNDECOMPOSED, FLAG.undecomposed],
  ]);
  for (const [ranges, flag] of named) {
    let end = 0;
    for (const range of ranges.split(" ")) {
      const [gap, length = "1"] = range.split("+");
      const start = end + parseInt(gap, 36);
      end = start + parseInt(length, 36);
      for (let code = start; code < end; code++) table[code] |= flag;
    }
  }
  return table;
}

/**
 * @typedef {object} NormalizerSettings of `BertNormalizer` in tokenizer.json
 * @property {boolean} clean_text
 * @property {boolean} handle_chinese_chars
 * @property {boolean | null} strip_accents
 * @property {boolean} lowercase
 */

/**
 * @typedef {object} Word a run of normalised characters
 * @property {string[]} characters one code point each
 * @property {number[]} from the code point of the text that each came from
 */

/**
 * Normalise a text and split it into words.
 *
 * @param {string[]} codePoints the text, one string a code point
 * @param {NormalizerSettings} settings
 * @returns {Generator<Word>}
 */
export function* words(codePoints, settings) {
  const flags = properties();
  const strip = settings.strip_accents ?? settings.lowercase;
  /** @type {Word} */
  let word = { characters: [], from: [] };

  for (let i = 0; i < codePoints.length; i++) {
    const code = /** @type {number} */ (codePoints[i].codePointAt(0));
    const property = flags[code];
    if (settings.clean_text && property & FLAG.removed) continue;

    const alone = settings.handle_chinese_chars && property & FLAG.chinese;
    if (alone && word.characters.length) {
      yield word;
      word = { characters: [], from: [] };
    }

    for (const character of normalised(codePoints[i], property, strip, settings.lowercase)) {
      const kind = flags[/** @type {number} */ (character.codePointAt(0))];
      const parts = kind & (FLAG.whitespace | FLAG.punctuation);
      if (parts && word.characters.length) {
        yield word;
        word = { characters: [], from: [] };
      }
      if (kind & FLAG.whitespace) continue;

      word.characters.push(character);
      word.from.push(i);
      if (parts) {
        yield word;
        word = { characters: [], from: [] };
      }
    }

    if (alone && word.characters.length) {
      yield word;
      word = { characters: [], from: [] };
    }
  }
  if (word.characters.length) yield word;
}

/**
 * What a character becomes without accents and in lower case. Character by character, as in Rust: the lower case of a
 * whole string would turn a capital sigma at the end of a word into another letter.
 *
 * @param {string} character
 * @param {number} property
 * @param {boolean} strip
 * @param {boolean} lowercase
 * @returns {string[]}
 */
function normalised(character, property, strip, lowercase) {
  if (character < "\x80") return [lowercase ? character.toLowerCase() : character];

  let found = [character];
  if (strip) {
    const whole = property & FLAG.undecomposed ? character : character.normalize("NFD");
    found = [...whole].filter((each) => !(properties()[/** @type {number} */ (each.codePointAt(0))] & FLAG.mark));
  }
  return lowercase ? found.flatMap((each) => [...each.toLowerCase()]) : found;
}
