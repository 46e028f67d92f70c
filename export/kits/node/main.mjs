// Classify each line of the standard input; a tab separates the texts of a pair, and a blank line is
// two empty texts.
//
//     node main.mjs < texts.txt

import { Classifier } from "./classifier.mjs";

// Yield the lines of a stream without their ends. A carriage return inside a line ends nothing.
async function* linesOf(stream) {
  const decode = (parts) => Buffer.concat(parts).toString().replace(/\r$/, "");
  let parts = [];
  for await (const chunk of stream) {
    let start = 0;
    for (let end; (end = chunk.indexOf("\n", start)) >= 0; start = end + 1) {
      yield decode([...parts, chunk.subarray(start, end)]);
      parts = [];
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  if (parts.length > 0) yield decode(parts);
}

// Return the two texts of a line, or null if it has no tab and is not blank.
function pairOf(line) {
  const tab = line.indexOf("\t");
  if (tab >= 0) return [line.slice(0, tab), line.slice(tab + 1)];
  return /^\p{White_Space}*$/u.test(line) ? ["", ""] : null;
}

const classifier = await Classifier.load();
let number = 0;
for await (const line of linesOf(process.stdin)) {
  number += 1;
  const texts = classifier.settings.task.pair ? pairOf(line) : [line];
  if (texts === null) {
    console.error(`error: line ${number} has no tab between its two texts`);
    process.exitCode = 1;
    break;
  }
  const { label, scores } = await classifier.predict(...texts);
  const chosen = [label].flat().map((name) => (name in scores ? `${name}\t${scores[name].toFixed(4)}` : name));
  console.log(chosen.join("\t"));
}
