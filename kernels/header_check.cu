__global__ void header_check() {}
