"""docs/api.md: every public name with the signature and the docstring that it has now."""

import attention_coresets
from attention_coresets import serving
from command_line import script

api_page = script("api_page")


def test_the_committed_page_is_the_source(capsys) -> None:
    assert api_page.main(["--check"]) == 0, capsys.readouterr().err


def test_a_change_is_seen(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "api.md"
    path.write_text(api_page.page().replace("rho", "radius", 1))
    monkeypatch.setattr(api_page, "PAGE", path)
    assert api_page.main(["--check"]) == 1
    assert "docs/api.md differs" in capsys.readouterr().err
    assert api_page.main([]) == api_page.main(["--check"]) == 0


def test_every_public_name_has_its_words() -> None:
    text = api_page.page()
    for name in (*attention_coresets.__all__, *serving.__all__):
        assert f"\n### {name}\n" in text
    assert "worst_query(cache, coreset, rho, *, body=None, restarts=64" in text
    assert "object at 0x" not in text  # defaults are readable
