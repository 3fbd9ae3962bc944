// echo in C++: the same interface. Handlers are functions, or lambdas that capture nothing; what they need goes by the
// context. The kernel is ended by a guard on every way out.
//
//     make && multikernel run build/echo++
#include <multikernel/kernel.h>

#include <iostream>
#include <memory>
#include <string>
#include <string_view>

namespace
{

struct Counts {
	uint64_t ipis = 0, messages = 0;
};

int serve(mk_kernel *k)
{
	Counts counts;
	mk_message m;
	int result;

	mk_kernel_on_ipi(
		k, 5,
		[](mk_kernel *, unsigned, uint64_t count, void *context) { static_cast<Counts *>(context)->ipis += count; },
		&counts);
	while ((result = mk_kernel_next(k, &m, -1)) > 0) {
		std::string_view text(static_cast<const char *>(m.payload), m.length);

		counts.messages++;
		if (text == "count") {
			const auto reply = std::to_string(counts.messages) + " messages, " + std::to_string(counts.ipis) +
					   " interrupts";
			mk_kernel_reply(k, &m, reply.data(), reply.size());
		} else {
			mk_kernel_reply(k, &m, text.data(), text.size());
		}
	}
	if (result < 0)
		std::cerr << "echo++: " << mk_kernel_error(k) << '\n';
	return result < 0;
}

} // namespace

int main()
{
	int status = 1;
	auto end = [&status](mk_kernel *k) { mk_kernel_exit(k, status); };
	std::unique_ptr<mk_kernel, decltype(end)> k(mk_kernel_attach(), end);

	if (!k) {
		std::cerr << "echo++: " << mk_kernel_error(nullptr) << '\n';
		return 1;
	}
	std::cout << mk_kernel_name(k.get()) << " is instance " << mk_kernel_id(k.get()) << std::endl;
	status = serve(k.get());
	return status;
}
