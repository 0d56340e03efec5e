"""A device of software: the compiled PTX of kernels, run by the host behind the driver's names."""
