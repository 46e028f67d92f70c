// Replay the golden texts of the bundle: exit code 0 if this machine computes what it should.

#include <algorithm>
#include <exception>
#include <iostream>

#include "classifier.hpp"

#include "answer.h"
#include "golden_data.h"
#include "golden.h"

int main(int argc, char** argv)
{
    const std::string model = argc > 1 ? argv[1] : "model.onnx";
    try {
        Classifier classifier(model);
        std::vector<float> logits;
        std::vector<int> same_tokens;
        for (const kd_golden_text& golden : kd_golden) {
            std::string_view text(golden.text, golden.bytes), pair;
            if (golden.pair)
                pair = {golden.pair, golden.pair_bytes};
            Tokens tokens = tokenize(text, golden.pair ? &pair : nullptr);
            same_tokens.push_back(std::equal(tokens.ids.begin(), tokens.ids.end(), golden.ids,
                                             golden.ids + golden.tokens));
            for (float logit : classifier.logits(tokens))
                logits.push_back(logit);
        }
        return kd_golden_report(logits.data(), same_tokens.data()) ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << "error: " << model << ": " << error.what() << '\n';
        return 1;
    }
}
