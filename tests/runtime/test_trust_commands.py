"""`sign`, `verify` and `--trusted-key`, and the note on a bundle without a seal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

Run = Callable[..., tuple[int, str, str]]


def test_keys_signature_and_verification(text_bundle: Path, tmp_path: Path, run: Run) -> None:
    """The commands of docs/trust.md, one after the other."""
    key = tmp_path / "release.key"
    status, out, err = run("sign", "--new-key", key)
    assert (status, err) == (0, "")
    assert f"rekd-edge sign BUNDLE --key {key}" in out

    status, out, err = run("verify", text_bundle)
    assert (status, err) == (0, "")
    assert "Only a signature shows whether someone changed it" in out

    status, out, err = run("sign", text_bundle, "--key", key)
    assert (status, err) == (0, "")
    fingerprint = out.splitlines()[0].split()[-1]

    status, out, err = run("verify", text_bundle, "--trusted-key", f"{key}.pub", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["signature"], report["signed_by"]) == ("trusted", fingerprint)
    assert run("predict", text_bundle, "good", "--trusted-key", f"{key}.pub", "--json")[0] == 0


def test_what_is_not_trusted_ends_with_status_2(
    text_bundle: Path, tmp_path: Path, edit_manifest: Callable[..., None], run: Run
) -> None:
    for name in ("ours", "theirs"):
        run("sign", "--new-key", tmp_path / name)
    trusted = ["--trusted-key", tmp_path / "ours.pub"]
    asked = (["verify", text_bundle], ["predict", text_bundle, "good"], ["predict", text_bundle, "--input", tmp_path,
             "--output", tmp_path / "out"])  # fmt: skip
    for words in ("is not signed", "a key that is not trusted", "changed after it was signed"):
        if words == "a key that is not trusted":
            run("sign", text_bundle, "--key", tmp_path / "theirs")
        if words == "changed after it was signed":
            run("sign", text_bundle, "--key", tmp_path / "ours")
            edit_manifest(text_bundle, labels=["positive", "negative"])
        for arguments in asked:
            status, out, err = run(*arguments, *trusted)
            assert (status, out) == (2, "")
            assert words in err
            assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--new-key FILE"),
        (["BUNDLE"], "--new-key FILE"),
        (["--key", "KEY"], "--new-key FILE"),
        (["BUNDLE", "--new-key", "KEY"], "give it alone"),
        (["BUNDLE", "--key", "KEY"], "KEY cannot be read"),
    ],
)
def test_wrong_usage_of_sign(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    status, out, err = run("sign", *(str(text_bundle) if word == "BUNDLE" else word for word in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_without_cryptography_it_says_what_to_install(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    for arguments in (
        ["sign", "--new-key", tmp_path / "key"],
        ["verify", text_bundle, "--trusted-key", tmp_path / "key.pub"],
    ):
        status, _, err = run(*arguments)
        assert status == 2
        assert 'pip install "rekd-edge[sign]"' in err
    assert run("verify", text_bundle)[0] == 0


def test_a_bundle_without_a_seal_opens_with_one_note(text_bundle: Path, run: Run) -> None:
    (text_bundle / "manifest.sha256").unlink()
    path = text_bundle / "manifest.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "seal"}))
    for arguments in (["inspect", text_bundle, "--json"], ["predict", text_bundle, "good", "--json"]):
        status, out, err = run(*arguments)
        assert status == 0
        json.loads(out)
        assert err.startswith(f"note: {text_bundle} was exported by an earlier version and has no seal")
        assert err.count("\n") == 1
    status, _, err = run("verify", text_bundle)
    assert status == 2
    assert "has no seal" in err
