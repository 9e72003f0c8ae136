// Takes native memory as C++ does, for the tests.
#include <vector>

static std::vector<std::vector<double> *> rows;

extern "C" void keep_rows(long count, long numbers) {
    for (long i = 0; i < count; i++) rows.push_back(new std::vector<double>(numbers));
}
