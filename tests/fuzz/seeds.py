"""The statements of tests/slt as the corpus that `ddl` begins with: one file each, and one for each list of columns.

Usage: python tests/fuzz/seeds.py
"""

import hashlib
import re
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus" / "ddl"
RECORD = re.compile(r"^(?:statement|query)[^\n]*\n(.*?)(?=\n\n|\n----|\Z)", re.MULTILINE | re.DOTALL)
COLUMNS = re.compile(r"STREAM\s+\S+\s*\((.*?)\)\s*AS\s*\$", re.DOTALL)


def main() -> None:
    """Write the corpus, and say how large it is."""
    texts = {record for file in HERE.glob("../slt/*.slt") for record in RECORD.findall(file.read_text())}
    texts |= {columns for text in texts for columns in COLUMNS.findall(text)}
    CORPUS.mkdir(parents=True, exist_ok=True)
    for text in texts:
        (CORPUS / hashlib.sha1(text.encode()).hexdigest()).write_text(text)
    print(f"{len(texts)} texts in {CORPUS}")


if __name__ == "__main__":
    main()
