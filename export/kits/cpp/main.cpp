// Classify each line of the standard input; a tab separates the texts of a pair.
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
            if (KD_PAIR) {
                std::size_t tab = text.find('\t');
                if (tab == text.npos) {
                    std::cerr << "error: line " << number << " has no tab between its two texts\n";
                    return 1;
                }
                second = text.substr(tab + 1);
                text = text.substr(0, tab);
            }
            kd_print_answer(stdout, classifier.logits(text, KD_PAIR ? &second : nullptr).data());
        }
    } catch (const std::exception& error) {
        std::cerr << "error: " << model << ": " << error.what() << '\n';
        return 1;
    }
}
