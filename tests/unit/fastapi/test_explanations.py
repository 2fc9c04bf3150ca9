"""The texts of the findings, taken from the documentation's page."""

from penstock.fastapi.live import parse_findings

PAGE = """# Findings

Some words about `all`.

## `one-thing`

- **Seen:** a `setting` that [links](settings.md#a)
  to a second line.
- **What to do:** act - or **not**.

Between them.

## `another`

- **Seen:** x.
"""


def test_each_section_has_its_terms_as_plain_text() -> None:
    assert parse_findings(PAGE) == {
        "one-thing": [
            ("Seen", "A setting that links to a second line."),
            ("What to do", "Act - or not."),
        ],
        "another": [("Seen", "X.")],
    }


def test_a_page_without_findings_explains_none() -> None:
    assert parse_findings("# Findings\n") == {}
