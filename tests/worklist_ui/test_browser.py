"""What a radiologist does, done in Debian's Chromium against the served worklist."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worklist_ui.conftest import PASSWORD, QUICK_HASH
from tests.worklist_ui.ledger_fill import Department
from triage.ledger import Ledger
from triage.ledger.feedback import Feedback
from triage.ledger.reconciliation import Coverage, Gap, GapState, Reconciliations
from triage.ledger.users import Users
from triage.study import NotAnalysedReason

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("Debian's package chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Department]]:
    """One running worklist for all of these tests; gives its address and the department that it shows."""
    folder = tmp_path_factory.mktemp("worklist")
    config = folder / "triage.toml"
    config.write_text(
        f'[storage]\nfolder = "{folder}"\n[worklist]\nport = 0\nopen_lists = 20\nsign_ins_per_minute = 99\n'
    )
    ledger = Ledger(folder / "ledger.sqlite")
    for name, role in (("reader", "radiologist"), ("other", "radiologist"), ("admin", "administrator")):
        Users(ledger).add(name, role=role, password_hash=QUICK_HASH, now=0.0)
    process = subprocess.Popen(
        [sys.executable, "-m", "ich_triage", "worklist", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['worklist_port']}", Department(folder, ledger)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    process.stdout.close()
    ledger.close()


@pytest.fixture
def served(running: tuple[str, Department]) -> str:
    return running[0]


@pytest.fixture
def department(running: tuple[str, Department]) -> Department:
    """The running worklist's department, with no study in it."""
    department = running[1]
    with department.ledger.transaction() as db:
        for table in (
            "studies", "instances", "analyses", "events", "feedback", "reconciliations", "reconciliation_gaps",
        ):  # fmt: skip
            db.execute(f"DELETE FROM {table}")
    department.now = time.time() - 600
    return department


@pytest.fixture
def sign_in(chromium, served):
    """Sign somebody in with a browser of their own; fails on anything that the browser complains of."""
    contexts, complaints = [], []

    def enter(username="reader", **options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(served)
        page.get_by_label("Name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#live.on")
        return page

    yield enter
    for context in contexts:
        context.close()
    assert complaints == []


def names(page):
    return page.locator("#rows td.patient a").all_inner_texts()


def wait_for(page, condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "this did not come about in time"
        page.wait_for_timeout(20)


def test_flag_that_arrives_while_the_list_is_open_moves_to_the_top_by_itself(department, sign_in):
    department.analyse("First^A", flagged=False)
    department.now += 60
    second = department.queue("Second^B")
    page = sign_in()
    assert names(page) == ["First, A", "Second, B"]

    department.find(second, flagged=True)
    wait_for(page, lambda: names(page) == ["Second, B", "First, A"], timeout_s=5)

    assert page.title().startswith("(1) ")
    assert "Flagged" in page.locator("#rows tr").first.inner_text()


def test_two_browsers_that_claim_one_study_see_one_holder(department, sign_in):
    study = department.analyse("Bleed^B", flagged=True)
    one, two = sign_in("reader"), sign_in("other")

    for page in (one, two):  # both press before either list has heard of the other
        page.keyboard.press("j")
        page.evaluate("document.activeElement.dataset.study")
    one.keyboard.press("c")
    two.keyboard.press("c")

    wait_for(one, lambda: department.again(study).claimed_by != "")
    holder = department.again(study).claimed_by
    winner, loser = (one, two) if holder == "reader" else (two, one)
    wait_for(winner, lambda: winner.locator("#rows .holder").all_inner_texts() == ["you"])
    wait_for(loser, lambda: loser.locator("#rows .holder").all_inner_texts() == [holder])
    assert loser.locator('[data-step="claim"], [data-step="read"]').count() == 0


def test_keys_alone_claim_read_and_undo(department, sign_in):
    department.analyse("First^A", flagged=True)
    department.now += 60
    department.analyse("Second^B", flagged=False)
    page = sign_in()

    page.keyboard.press("j")
    page.keyboard.press("c")
    wait_for(page, lambda: page.locator("#rows .holder").all_inner_texts() == ["you"])
    page.keyboard.press("m")
    wait_for(page, lambda: names(page) == ["Second, B"])
    page.keyboard.press("u")
    wait_for(page, lambda: names(page) == ["First, A", "Second, B"])


def test_keys_open_search_and_switch_views(department, sign_in):
    department.analyse("First^A", flagged=True)
    page = sign_in()

    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("nobody")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=nobody**")
    assert "No study fits." in page.locator("#empty").inner_text()
    page.keyboard.press("1")
    page.wait_for_selector("#rows tr")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies/*/")


def test_preview_scrolls_and_windows_by_keys(department, sign_in):
    department.analyse("First^A", flagged=True, slices=5)
    page = sign_in()
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_selector("#viewer")

    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")

    assert page.locator("#where").inner_text() == "Slice 3 of 5"
    assert page.locator("#window").inner_text() == "W 200 L 80 HU"
    wait_for(
        page, lambda: re.search(r"slices/2\.jpg\?width=200&level=80$", page.locator("#slice").get_attribute("src"))
    )
    assert page.evaluate("document.getElementById('slice').naturalWidth") > 300


def test_columns_are_chosen_and_ordered_by_keys(department, sign_in):
    department.analyse("First^A", flagged=True)
    page = sign_in()

    page.keyboard.press("e")
    page.get_by_label("Waiting", exact=True).focus()
    page.keyboard.press("Space")
    page.get_by_label("Waiting further left").focus()
    page.keyboard.press("Enter")
    assert violations(page) == []
    page.get_by_role("button", name="For this view only").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#live.on")

    heads = page.locator("#list thead th").all_inner_texts()
    assert [head for head in heads if head in ("Waiting", "Arrived")] == ["Waiting", "Arrived"]
    department.analyse("Second^B", flagged=False)  # the stream draws the same columns
    wait_for(page, lambda: len(names(page)) == 2)
    assert page.locator("#rows tr").last.locator("td").count() == len(heads)


def test_new_flag_is_seen_and_heard_on_the_study_page(department, sign_in):
    study = department.analyse("Open^A", flagged=False)
    second = department.queue("Second^B")
    page = sign_in()
    beside = page.context.new_page()
    beside.goto(page.url.split("/list")[0] + f"/studies/{study.study_id}/")
    for each in (page, beside):
        each.evaluate("() => { window.AudioContext = class { constructor() { localStorage.beeps += 1; } }; }")
    page.evaluate("localStorage.beeps = ''")
    beside.wait_for_selector("#flags .what:not(:empty)", state="attached")

    department.now = time.time()
    department.find(second, flagged=True)

    beside.wait_for_selector("#flags:not([hidden])")
    assert "1 unread flag" in beside.locator("#flags").inner_text()
    assert beside.title().startswith("(1) ")
    wait_for(page, lambda: page.title().startswith("(1) "))
    assert set(page.evaluate("localStorage.beeps")) == {"1"}


def test_sound_can_be_switched_off_and_stays_off(sign_in):
    page = sign_in()

    page.keyboard.press("n")
    page.reload()

    assert page.locator("#notice").inner_text().split() == ["♪", "Sound", "off"]
    assert page.locator("#notice").get_attribute("aria-pressed") == "false"


def test_hostile_name_runs_nothing(department, sign_in):
    department.analyse("<img src>^<script>alert(2)</script>", flagged=True)
    page = sign_in()
    page.on("dialog", lambda dialog: pytest.fail(f"ran: {dialog.message}"))

    assert names(page) == ["<img src>, <script>alert(2)</script>"]


def test_list_fits_a_phone(department, sign_in):
    department.analyse(
        "Longname-Hyphenated^Maximiliana", flagged=True, study_description="CT HEAD WITHOUT CONTRAST, TRAUMA"
    )

    page = sign_in(viewport={"width": 390, "height": 844})

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_role("button", name="Claim").is_visible()


def test_light_theme_is_kept(sign_in):
    page = sign_in()

    page.keyboard.press("t")
    page.reload()

    assert page.locator("html").get_attribute("data-theme") == "light"


def test_stopped_worklist_says_so_and_comes_back_to_life(department, sign_in, served):
    page = sign_in()

    page.context.set_offline(True)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(page, lambda: page.locator("#live").inner_text() != "live", timeout_s=10)
    department.analyse("Meanwhile^A", flagged=True)
    page.context.set_offline(False)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    wait_for(page, lambda: names(page) == ["Meanwhile, A"], timeout_s=15)


def violations(page):
    """Name what axe finds against WCAG 2.2 AA, with the first element of each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}, "resultTypes": ["violations"]}
    found = axe.Axe().run(page, options=options).response["violations"]
    return [f"{item['id']}: {item['nodes'][0]['html'][:200]}" for item in found]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_list_is_accessible(department, sign_in, theme):
    department.analyse("First^A", flagged=True, stat=True)
    department.analyse("Second^B", flagged=False)
    department.refuse(department.queue("Third^C"), NotAnalysedReason.BONE_KERNEL, "kernel H60s")
    department.fail(department.queue("Fourth^D"), "The disk was full.")
    department.receive("Fifth^E")
    page = sign_in()
    if theme == "light":
        page.keyboard.press("t")
    page.keyboard.press("j")

    assert violations(page) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_study_page_and_its_dialogs_are_accessible(department, sign_in, theme):
    study = department.analyse("First^A", flagged=True)
    page = sign_in()
    if theme == "light":
        page.keyboard.press("t")
    page.goto(page.url.split("/list")[0] + f"/studies/{study.study_id}/")
    page.wait_for_selector("#where:not(:empty)")

    assert violations(page) == []
    page.keyboard.press("?")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    assert violations(page) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pages_of_those_who_look_after_it_are_accessible(department, sign_in, theme):
    study = department.analyse("First^A", flagged=True)
    gap = Gap(study.study_instance_uid, "20260102", 32, 3, GapState.GIVEN_UP, 3, "the PACS refused")
    now = time.time()
    Reconciliations(department.ledger).record(
        Coverage(now, now, "2026-01-02", "2026-01-02", 1, 0, 32, 3, 0, "", (gap,))
    )
    Feedback(department.ledger).give(study.study_id, "reader", revision=1, reason=None, now=now)
    page = sign_in("admin")
    if theme == "light":
        page.keyboard.press("t")
    home = page.url.split("/list")[0]

    found = {"/list": violations(page)}
    for path in ("/intake", "/agreement", "/accounts", "/audit", "/api/v1/"):
        page.goto(home + path)
        found[path] = violations(page)

    assert [path for path in found if found[path]] == [], found


def test_sign_in_page_is_accessible(chromium, served):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(served)

    assert violations(page) == []
    context.close()


def test_note_is_kept_with_the_reason(department, sign_in):
    study = department.analyse("First^A", flagged=True)
    page = sign_in()
    page.goto(page.url.split("/list")[0] + f"/studies/{study.study_id}/")

    page.keyboard.press("d")
    page.get_by_label("Note").fill("plexus, 2 mm")
    page.get_by_label("Note").press("2")  # a digit of the note chooses nothing
    page.get_by_role("button", name="Calcification").click()

    page.wait_for_selector('[data-step="disagree"][aria-pressed="true"]')
    assert "calcification, plexus, 2 mm2" in page.locator(".facts").inner_text()


def test_every_key_of_the_study_page_does_what_its_help_says(department, sign_in):
    study = department.analyse("First^A", flagged=True, slices=8)
    following = department.analyse("Second^B", flagged=False)
    page = sign_in()
    page.goto(page.url.split("/list")[0] + f"/studies/{study.study_id}/")
    page.wait_for_selector("#where:not(:empty)")
    where = page.locator("#where")

    seen = []
    for key in ("j", "k", "PageDown", "PageUp", "End", "Home", "s"):
        page.keyboard.press(key)
        seen.append(where.inner_text().split()[1])
    page.keyboard.press("a")
    page.wait_for_selector('[data-step="agree"][aria-pressed="true"]')
    page.keyboard.press("d")
    page.keyboard.press("2")
    page.wait_for_selector('[data-step="disagree"][aria-pressed="true"]')

    assert seen == ["3", "2", "7", "2", "8", "1", "3"]  # key slices are 2, 1, 3
    assert "Calcification" in page.locator('[data-step="disagree"]').inner_text()
    page.keyboard.press("]")
    page.wait_for_url(f"**/studies/{following.study_id}/")
    page.keyboard.press("l")
    page.wait_for_url("**/list")
