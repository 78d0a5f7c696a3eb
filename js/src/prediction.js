// What a prediction is: the fields of Python's, see docs/runtime.md.

/**
 * A stretch of the text: `text === input.slice(start, end)`.
 *
 * @typedef {object} Span
 * @property {number} start
 * @property {number} end
 * @property {string} text
 */

/**
 * What speaks for one label: its spans, and its score of every token, 0 to 1.
 *
 * @typedef {object} ClassRationale
 * @property {Span[]} rationale
 * @property {number[]} scores
 */

/**
 * @typedef {object} TextPrediction
 * @property {string} label
 * @property {number} label_id
 * @property {Record<string, number>} scores the probability of each label
 * @property {Span[]} rationale
 * @property {number[]} mask one entry a token, 1 where it is selected
 * @property {string[]} tokens
 * @property {number} rationale_ratio share of the tokens that is selected, 0 for a text without tokens
 * @property {boolean} truncated the end of the text was not read
 * @property {number[]} margins the selection margin of each token: selected above 0
 * @property {Record<string, ClassRationale>} [class_rationales] of bundles that score tokens for every label
 */

/**
 * @typedef {object} ImagePrediction
 * @property {string} label
 * @property {number} label_id
 * @property {Record<string, number>} scores the probability of each label
 * @property {number[][]} mask the grid of patches row by row, 1 where one is selected
 * @property {number} patch_size in pixels of the model
 * @property {number} rationale_ratio
 * @property {number[]} margins the selection margin of each patch, row by row
 */

/**
 * Label and softmax scores of a row of logits.
 *
 * @param {ArrayLike<number>} logits
 * @param {string[]} labels
 */
export function decision(logits, labels) {
  const values = Array.from(logits);
  const largest = Math.max(...values);
  const exponentials = values.map((value) => Math.exp(value - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  const best = values.indexOf(largest);

  return {
    label: labels[best],
    label_id: best,
    scores: Object.fromEntries(labels.map((label, i) => [label, exponentials[i] / sum])),
  };
}

/**
 * Merge neighbouring selected tokens into spans, from the first start to the last end.
 *
 * @param {[number, number][]} offsets
 * @param {ArrayLike<number>} mask
 * @returns {[number, number][]}
 */
export function mergeSpans(offsets, mask) {
  /** @type {[number, number][]} */
  const spans = [];
  let previous = false;

  offsets.forEach(([start, end], i) => {
    const selected = Boolean(mask[i]);
    if (selected && start < end) {
      const last = spans.at(-1);
      if (last && (previous || start < last[1])) last[1] = Math.max(end, last[1]);
      else spans.push([start, end]);
    }
    previous = selected && (start < end || previous);
  });
  return spans;
}

/**
 * The tokens of a class that is not the label: scores above its threshold, or the first of the best, with those beside
 * it that have the very same.
 *
 * @param {number[]} scores
 * @param {number} threshold
 * @returns {number[]}
 */
export function classMask(scores, threshold) {
  const mask = scores.map((score) => Number(score > threshold));
  if (!scores.length || mask.includes(1)) return mask;

  const best = Math.max(...scores);
  for (let i = scores.indexOf(best); i < scores.length && scores[i] === best; i++) mask[i] = 1;
  return mask;
}

/**
 * Where every code point begins in a JavaScript string, and where the last one ends.
 *
 * @param {string} text
 * @returns {number[]}
 */
export function codeUnitStarts(text) {
  const starts = [0];
  for (const character of text) starts.push(/** @type {number} */ (starts.at(-1)) + character.length);
  return starts;
}
