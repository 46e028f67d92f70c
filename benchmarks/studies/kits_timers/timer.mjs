// Print the seconds of each call of Classifier.predict: node timer.mjs CALLS TEXT

import { Classifier } from "./classifier.mjs";

const classifier = await Classifier.load();
const seconds = [];
for (let i = Number(process.argv[2]); i > 0; i -= 1) {
  const start = process.hrtime.bigint();
  await classifier.predict(process.argv[3]);
  seconds.push(Number(process.hrtime.bigint() - start) / 1e9);
}
console.log(seconds.join("\n"));
