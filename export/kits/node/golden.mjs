// Replay the golden texts of the bundle by the rules of `kdedge verify`: exit code 0 if this
// machine computes what it should.

import { readFile } from "node:fs/promises";

import { Classifier, toPrediction } from "./classifier.mjs";

const golden = JSON.parse(await readFile(new URL("golden.json", import.meta.url), "utf8"));
const classifier = await Classifier.load();
const { precision, task } = classifier.settings;
const labelOf = (logits) => JSON.stringify(toPrediction(classifier.settings, logits).label);

let [tokens, labels] = [0, 0];
const differences = [];
for (const { text, pair = null, input_ids, logits: expected } of golden.rows) {
  const { ids } = classifier.tokenizer.encode(text, pair);
  tokens += JSON.stringify(ids) === JSON.stringify(input_ids);
  const logits = await classifier.logits(text, pair);
  const wanted = Float32Array.from(expected[precision]);
  labels += task.kind === "regression" || labelOf(logits) === labelOf(wanted);
  differences.push(Math.max(...wanted.map((value, i) => Math.abs(value - logits[i]))));
}
const sorted = Float64Array.from(differences).sort(); // NaN comes last
const count = golden.rows.length;
const largest = sorted[count - 1];
const quartile = sorted[Math.floor((count - 1) / 4)];
const limit = golden.tolerance[precision];
console.log(`${count} golden texts: ${tokens} with equal tokens, ${labels} with equal labels`);
console.log(
  `largest logit difference ${largest.toPrecision(3)} (limit ${limit}), ` +
    `lower quartile ${quartile.toPrecision(3)} (limit 0.001)`,
);
const enough = tokens === count && count - labels <= Math.floor(count / 4);
const passed = enough && largest <= limit && quartile <= 0.001;
console.log(passed ? "passed" : "FAILED");
process.exitCode = passed ? 0 : 1;
