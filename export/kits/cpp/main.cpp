// Classify each line of the standard input; a tab separates the texts of a pair, and a blank line is
// two empty texts.
//
//     ./kdedge-classify [MODEL.onnx] < texts.txt

#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "classifier.hpp"

#include "answer.h"

int main(int argc, char** argv)
{
    const std::string model = argc > 1 ? argv[1] : "model.onnx";
    try {
        Classifier classifier(model);
        std::string line;
        for (long number = 1; std::getline(std::cin, line); number++) {
            std::string_view text = line, second;
            if (!text.empty() && text.back() == '\r')
                text.remove_suffix(1);
            if (KD_PAIR) {
                std::size_t tab = text.find('\t');
                if (tab != text.npos) {
                    second = text.substr(tab + 1);
                    text = text.substr(0, tab);
                } else if (!kd_is_blank(text.data(), text.size())) {
                    std::cerr << "error: line " << number << " has no tab between its two texts\n";
                    return 1;
                }
            }
            kd_print_answer(stdout, classifier.logits(text, KD_PAIR ? &second : nullptr).data());
        }
    } catch (const std::exception& error) {
        std::cerr << "error: " << model << ": " << error.what() << '\n';
        return 1;
    }
}
