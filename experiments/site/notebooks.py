"""Executed notebooks as pages: their texts, their code, and what it printed and drew."""

from __future__ import annotations

from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def pages(folder: Path) -> dict[str, str]:
    """Path on the site → text; figures are written into ``folder``."""
    import nbformat
    from nbconvert import MarkdownExporter

    found: dict[str, str] = {}
    exporter = MarkdownExporter()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        text, resources = exporter.from_notebook_node(
            notebook, resources={"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
        )
        for name, data in resources.get("outputs", {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        found[f"notebooks/{path.stem}.md"] = text
    return found


def clean() -> None:
    """Leaves out what notebooks said on standard error (progress, warnings), and when they ran."""
    import nbformat

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)


if __name__ == "__main__":
    clean()
