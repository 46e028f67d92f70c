"""Classify texts with optimum and a bundle, in an environment that holds optimum-onnx.

    python optimum_program.py < {"bundle": PATH, "file": "model_quantized.onnx", "rows": [...]}

It prints the token ids and logits of each row of one or two texts, and the pipeline's answers.
"""

from __future__ import annotations

import json
import sys

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

request = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(request["bundle"])
model = ORTModelForSequenceClassification.from_pretrained(
    request["bundle"], subfolder="onnx", file_name=request["file"]
)
rows = []
for row in request["rows"]:
    inputs = tokenizer(*row, truncation=True, return_tensors="pt")
    logits = model(**inputs).logits[0].tolist()
    rows.append({"ids": inputs["input_ids"][0].tolist(), "logits": logits})
answers = []
if len(request["rows"][0]) == 1:
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    for (text,) in request["rows"]:
        answers.append(classify([text], truncation=True)[0])
sys.stdout.write(json.dumps({"rows": rows, "answers": answers}))
