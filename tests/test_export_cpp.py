"""A TorchScript file answers the same in C++, against the libtorch that lies in the torch wheel."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_tasks.contract.exports import Pictures, PictureSteps
from hf_tasks.export.torchscript import write_end_to_end_torchscript

PROGRAM = r"""
#include <torch/script.h>
#include <iostream>
int main(int argc, char** argv) {
    torch::jit::Module module = torch::jit::load(argv[1]);
    // row r, column c, channel k holds (7 r + 5 c + 3 k) % 256
    auto pictures = torch::empty({1, 37, 53, 3}, torch::kUInt8);
    auto pixels = pictures.accessor<uint8_t, 4>();
    for (int r = 0; r < 37; ++r)
        for (int c = 0; c < 53; ++c)
            for (int k = 0; k < 3; ++k) pixels[0][r][c][k] = (7 * r + 5 * c + 3 * k) % 256;
    auto answers = module.forward({pictures}).toTensor().contiguous();
    for (int i = 0; i < answers.numel(); ++i) std::cout << answers.data_ptr<float>()[i] << "\n";
}
"""
WHEEL = Path(torch.__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
@pytest.mark.skipif(not (WHEEL / "include/torch/script.h").is_file(), reason="the wheel has no C++ headers")
def test_a_complete_graph_gives_the_same_answers_in_cpp(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(3)).eval()
    example = torch.zeros(1, 3, 16, 16)
    network(example)
    steps = PictureSteps("shorter-side", (18, 18), (16, 16), "bicubic", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    pictures = Pictures(steps, lambda row: None, "softmax")
    file = tmp_path / "end_to_end.pt"
    write_end_to_end_torchscript(torch.jit.trace(network, example), pictures, file, metadata={})
    (tmp_path / "main.cpp").write_text(PROGRAM)
    libraries = ["-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run(
        [
            *("g++", "-std=c++20", "-O0", "main.cpp", "-o", "answers"),
            *(f"-I{WHEEL / 'include'}", f"-I{WHEEL / 'include/torch/csrc/api/include'}"),
            *(f"-L{WHEEL / 'lib'}", f"-Wl,-rpath,{WHEEL / 'lib'}", "-Wl,--no-as-needed", *libraries),
        ],
        cwd=tmp_path,
        check=True,
    )

    answer = subprocess.run([tmp_path / "answers", file], capture_output=True, text=True, check=True).stdout

    row, column, channel = np.ogrid[:37, :53, :3]
    pixels = torch.from_numpy(((7 * row + 5 * column + 3 * channel) % 256).astype(np.uint8)[None])
    expected = torch.jit.load(str(file))(pixels)[0].detach().numpy()
    np.testing.assert_allclose([float(line) for line in answer.split()], expected, atol=1e-5)
