// Classify each line of the standard input; a tab separates the texts of a pair.
//
//     node main.mjs < texts.txt

import { createInterface } from "node:readline";

import { Classifier } from "./classifier.mjs";

const classifier = await Classifier.load();
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const tab = classifier.settings.task.pair ? line.indexOf("\t") : line.length;
  if (tab < 0) throw new Error(`a line has no tab between its two texts: ${line}`);
  const pair = classifier.settings.task.pair ? line.slice(tab + 1) : null;
  const { label, scores } = await classifier.predict(line.slice(0, tab), pair);
  const chosen = [label].flat().map((name) => (name in scores ? `${name}\t${scores[name].toFixed(4)}` : name));
  console.log(chosen.join("\t"));
}
