"""Memory of a language model's run over text files of growing size: it must not grow with them.

    python tests/benchmarks/text_streaming.py [txt|jsonl|hub] [MEGABYTES ...]

Each size is a program of its own: it reads, splits, learns a tokenizer, packs, and trains a tiny model for
three steps. `hub` is a local folder with a jsonl file, which is read as a data set of the Hub is. Counted
is the most anonymous memory beyond that of the imported libraries; pages of mapped files are the system's to
take back.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KINDS = ("txt", "jsonl", "hub")
SIZES = (100, 400)
LINE = "day {day} of year {year} had {hours} hours of rain, {more} of sun, and nothing else worth telling\n"
DAYS = 1000


def write_text(path: Path, megabytes: int) -> None:
    """Distinct lines of few distinct words, about 90 bytes each."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(megabytes * 1_000_000 // 90):
            year, day = divmod(number, DAYS)
            line = LINE.format(day=day, year=year, hours=number % 7, more=number % 11)
            file.write(line if path.suffix == ".txt" else f'{{"text": "{line.rstrip()}"}}\n')


def measure(path: Path, folder: Path, kind: str) -> None:
    """Run in this process, and print seconds and megabytes."""
    import datasets
    from transformers import TrainingArguments

    from hf_tasks.tasks.language_model.settings import Settings
    from hf_tasks.tasks.language_model.task import TASK

    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    before, start, peak = anonymous_megabytes(), time.perf_counter(), [0.0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    sizes = {"vocab_size": 500, "hidden_size": 16, "layers": 1, "heads": 2, "block_size": 64}
    source = {"txt": ("text", path), "jsonl": ("table", path), "hub": ("hub", path.parent)}[kind]
    data = {"train": {source[0]: str(source[1])}, "validation": 0.001}
    settings = Settings(data=data, model={"from_scratch": sizes})
    splits = TASK.prepare(settings)
    model = TASK.build_model(settings, None, splits)
    arguments = TrainingArguments(
        str(folder / "run"), max_steps=3, save_strategy="no", report_to="none",
        remove_unused_columns=False, disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = TASK.build_trainer(settings, model, splits, arguments, False)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    seconds, size = time.perf_counter() - start, path.stat().st_size / 1e6
    print(
        f"{size:6.0f} MB of {kind}: {peak[0] - before:6.0f} MB of memory, {seconds:5.0f} s, loss {loss:.3f}"
    )


def anonymous_megabytes() -> float:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def _watch(peak: list[float]) -> None:
    while True:
        peak[0] = max(peak[0], anonymous_megabytes())
        time.sleep(0.02)


def main() -> None:
    """Measure each size in a fresh process."""
    if "--file" in sys.argv:
        measure(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
        return
    kind = next((argument for argument in sys.argv[1:] if argument in KINDS), KINDS[0])
    for megabytes in [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "text" / ("text.txt" if kind == "txt" else "text.jsonl")
            path.parent.mkdir()
            write_text(path, megabytes)
            subprocess.run([sys.executable, __file__, "--file", str(path), folder, kind], check=True)


if __name__ == "__main__":
    main()
