// Replay golden.json: does this browser compute the logits that were exported?

import { labelOf } from "./classifier.js";

/** At least a quarter of the texts must be this close, as in `kdedge verify`. */
const QUARTILE_TOLERANCE = 1e-3;

const TEXTS_AT_A_TIME = 8;

/**
 * Run every golden text.
 * @returns texts, tokenMismatches, labelMismatches, largest, quartile, tolerance, passed.
 */
export async function replay(classifier, golden) {
  const { precision, spec } = classifier;
  const differences = [];
  let tokenMismatches = 0;
  let labelMismatches = 0;
  for (const row of golden.rows) {
    const encoded = classifier.encoder.encode(row.text, row.pair ?? null);
    tokenMismatches += !isSame(encoded.ids, row.input_ids);
    const logits = await classifier.run(encoded);
    labelMismatches += !isSame(labelOf(spec, logits), row.labels[precision]);
    differences.push(largestDifference(logits, row.logits[precision]));
    if (differences.length % TEXTS_AT_A_TIME === 0) {
      await new Promise((resume) => setTimeout(resume)); // The page stays responsive.
    }
  }
  return judge(differences, { tokenMismatches, labelMismatches }, golden.tolerance[precision]);
}

function judge(differences, { tokenMismatches, labelMismatches }, tolerance) {
  const texts = differences.length;
  const sorted = Float64Array.from(differences).sort(); // A NaN is sorted to the end.
  const largest = sorted[texts - 1];
  const quartile = sorted[Math.floor((texts - 1) / 4)];
  const passed =
    tokenMismatches === 0 &&
    labelMismatches <= Math.floor(texts / 4) &&
    largest <= tolerance &&
    quartile <= QUARTILE_TOLERANCE;
  return { texts, tokenMismatches, labelMismatches, largest, quartile, tolerance, passed };
}

function largestDifference(logits, expected) {
  return Math.max(...expected.map((value, i) => Math.abs(value - logits[i])));
}

function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
