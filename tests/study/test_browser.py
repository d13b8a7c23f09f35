"""The page to explore in a real browser, without a window: filters, search, keys and addresses do what they say."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from secondlook.reporting.explore import explore
from secondlook.study.results import Results

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")

CLAIM = {
    "experiment": "toy", "source": "a document", "kind": "document", "evidence": "original", "question": "scale", "short": "s",
    "stated": "0.1", "band": "", "bands": "", "measured": [], "checks": {}, "why": "It is so.", "figure": None, "command": "make",
}  # fmt: skip
CLAIMS = [
    CLAIM | {"id": "A1", "statement": "A loss.", "verdict": "partly", "figure": "toy/line"},
    CLAIM | {"id": "B2", "statement": "An epoch.", "verdict": "not reproduced", "source": "another", "question": "cost"},
    CLAIM | {"id": "B3", "statement": "Another epoch.", "verdict": "partly", "kind": "paper", "question": "cost"},
]
SAYS = """<script>
addEventListener("load", () => setTimeout(() => {
  const key = name => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const set = (name, value) => { form[name].value = value; form.dispatchEvent(new Event("input")); };
  const focus = () => (document.activeElement.closest("details") || document.activeElement).id || document.activeElement.name;
  const seen = () => claims.filter(claim => claim.offsetParent !== null).map(claim => claim.id).join(" ");
  const said = [];
  const say = found => said.push(String(found));
  %s
  setTimeout(() => { document.body.textContent = "SAID" + JSON.stringify(said) + "SAID"; }, 200);
}, 100));
</script>"""


def said(folder: Path, script: str, address: str = "") -> list[str]:
    """What the script says in the page, opened at the address."""
    (folder / "report").symlink_to(ROOT / "report")
    drawn = folder / "results" / "figures" / "toy"
    drawn.mkdir(parents=True)
    (drawn / "line.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><!-- </script> --></svg>')
    page = folder / "index.html"
    page.write_text(explore(Results(folder), CLAIMS, [], []) + SAYS % script)
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}/profile",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run([CHROMIUM, *options, "--dump-dom", f"file://{page}{address}"], capture_output=True, text=True)
    return json.loads(re.search("SAID(.*)SAID", done.stdout)[1])


@pytest.mark.parametrize(
    "script, address, expected",
    [
        ("say(seen()); say(form.querySelector('output').textContent);", "", ["A1 B2 B3", "3 of 3 claims"]),
        ("set('verdict', 'partly'); say(seen()); set('kind', 'the paper behind it'); say(seen());", "", ["A1 B3", "B3"]),
        ("set('document', 'another'); say(seen()); set('words', 'another'); say(seen());", "", ["B2", "B2"]),
        ("set('words', 'EPOCH another'); say(seen()); set('words', 'b3'); say(seen());", "", ["B2 B3", "B3"]),
        ("set('words', 'loss'); say([...document.querySelectorAll('section')].filter(s => s.hidden).length);", "", ["1"]),
        ("key('j'); say(focus()); key('j'); say(focus()); key('k'); say(focus());", "", ["A1", "B2", "A1"]),
        ("key('/'); say(focus()); set('words', 'epoch'); key('j'); say(focus()); key('Escape'); say(seen());", "",
         ["words", "words", "A1 B2 B3"]),
        ("say(claims.filter(claim => claim.open).map(claim => claim.id)); say(focus());", "#B2", ["B2", "B2"]),
        ("claims[0].open = true; draw(claims[0]); setTimeout(() => say(claims[0].querySelector('img').naturalWidth), 100);", "",
         ["40"]),
        ("say(getComputedStyle(document.body).backgroundColor); say(document.querySelectorAll('[src^=http]').length);", "",
         ["rgb(255, 255, 255)", "0"]),
    ],
)  # fmt: skip
def test_what_the_page_does(tmp_path, script, address, expected):
    assert said(tmp_path, script, address) == expected
