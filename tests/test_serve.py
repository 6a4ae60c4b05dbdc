"""The page: what the server answers and refuses, and what a browser makes of it."""

import asyncio
import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import pathlib
import re
import shutil
import signal
import socket
import time
import types

import numpy as np
import pytest
import requests
import soundfile
from conftest import run_module, tone

from mgr_jax import audio, judge, main
from mgr_jax import config as config_lib
from mgr_jax.config import Config, UserError
from mgr_jax.predict import Prediction

serve = pytest.importorskip("mgr_jax.serve", reason="needs the extra serve")
asgi = serve.asgi

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
HOSTILE_NAME = "<img src=x onerror=\"document.title='taken'\">.wav"


def wav(hz: float = 440.0, seconds: float = 6.0, rate_hz: int = 22_050) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(hz, seconds, rate_hz), rate_hz, format="WAV")
    return file.getvalue()


def wait_for(found, seconds: float = 60.0):
    """What `found` gives, once that is not false."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def run_folder(music_folder, tmp_path_factory):
    """A run that tells tones around A from tones around D sharp."""
    tmp = tmp_path_factory.mktemp("serve_run")
    config = Config(
        mode="train",
        dataset="folder",
        feature="chroma",
        data_dir=str(music_folder),
        features_dir=str(tmp / "features"),
        workdir=str(tmp / "my run"),
        num_epochs=12,
        learning_rate=0.01,
        batch_size=4,
        widths=(4, 4, 8),
        hidden_units=8,
    )
    main.run(config_lib.complete(config, "track", ["track"]))
    return tmp / "my run"


@dataclasses.dataclass(frozen=True)
class Server:
    process: object
    url: str
    folder: pathlib.Path

    @property
    def address(self):
        host, port = self.url.removeprefix("http://").strip("/").split(":")
        return host.replace("0.0.0.0", "127.0.0.1"), int(port)

    def post(self, body, headers=None, **params):
        return requests.post(
            self.url + "api/predict",
            data=body,
            params=params,
            headers=headers,
            timeout=120,
        )

    def uploads(self):
        return [path for path in self.folder.rglob("*") if path.is_file()]

    @contextlib.contextmanager
    def stalled_upload(self):
        """A request whose body does not come to an end."""
        with socket.create_connection(self.address, timeout=60) as connection:
            connection.sendall(
                b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 1000\r\n\r\nsome"
            )
            yield connection


@contextlib.contextmanager
def serving(run_folder, folder, *flags, ended_by):
    """The program, ready; ended by a signal, it leaves nothing behind."""
    process = run_module(
        "mgr_jax.serve",
        f"--workdir={run_folder}",
        "--port=0",
        *flags,
        cwd=folder,
        start_only=True,
        TMPDIR=str(folder),
    )
    try:
        ready = process.stdout.readline()
        url = re.search(r"ready: (http://\S+/) ", ready)
        assert url, ready + process.stderr.read()
        yield Server(process, url[1], folder)
        process.send_signal(ended_by)
        said, errors = process.communicate(timeout=60)
        assert said == "ended\n"
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert list(folder.iterdir()) == []
    finally:
        process.kill()


@pytest.fixture(scope="module")
def server(run_folder, tmp_path_factory):
    limits = ("--max_mb=2", "--max_minutes=1", "--max_waiting=1")
    folder = tmp_path_factory.mktemp("serve_tmp")
    with serving(run_folder, folder, *limits, ended_by=signal.SIGINT) as found:
        yield found


# --- the answer


@pytest.mark.parametrize(
    ("shares", "sentence", "sure"),
    [
        ((0.83, 0.09, 0.08), "Probably jazz (83 %), then blues (9 %)", True),
        ((0.9999, 0.0001, 0.0), "Probably jazz (over 99 %)", True),
        ((0.34, 0.31, 0.35), "Not sure: rock 35 %, jazz 34 %", False),
        ((0.49, 0.30, 0.21), "Not sure: jazz 49 %, blues 30 %", False),
        ((0.54, 0.46, 0.0), "Not sure: jazz 54 %, blues 46 %", False),
        ((0.60, 0.40, 0.0), "Probably jazz (60 %), then blues (40 %)", True),
    ],
)
def test_the_answer_says_when_the_model_is_not_sure(shares, sentence, sure):
    labels = ("jazz", "blues", "rock")
    shares = np.array([shares], np.float32)
    found = Prediction(labels, shares, np.zeros(1), 5.0)
    assert judge.answer(found) == (sentence, sure)


def test_the_answer_of_a_model_with_one_genre():
    found = Prediction(("jazz",), np.ones((1, 1), np.float32), np.zeros(1), 5.0)
    assert judge.answer(found) == ("Probably jazz (over 99 %)", True)


@pytest.mark.parametrize("length", [1, 63, 64, 10_000, 64_001, 1_000_003])
def test_the_outline_has_each_parts_extremes_however_the_blocks_fall(length):
    rng = np.random.default_rng(length)
    samples = rng.normal(size=length).astype(np.float32)
    outline = judge.Outline()
    cuts = np.sort(rng.integers(0, length, 20))
    for block in np.split(samples, cuts):
        outline.add(block)
    facts = outline.facts()
    part = round(facts["part_s"] * 22_050)
    assert len(facts["low"]) == len(facts["high"]) == -(-length // part)
    assert len(facts["low"]) <= 2 * judge.OUTLINE_PARTS
    starts = range(0, length, part)
    for name, extreme in (("low", np.min), ("high", np.max)):
        known = [extreme(samples[start : start + part]) for start in starts]
        np.testing.assert_allclose(facts[name], known, atol=5.1e-4)


def test_judging_stops_when_nobody_waits(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav())

    def file(path, hop_s, decode=audio.stream):
        return list(decode(path, audio.Notes()))

    deaf = types.SimpleNamespace(file=file)
    with pytest.raises(judge.Stopped):
        judge.judge(deaf, tmp_path / "a.wav", 5.0, 60, lambda: True)


# --- the addresses


def test_a_recording_is_judged(server):
    found = server.post(wav(622.25, 12.0)).json()
    assert found["answer"].startswith("Probably d sharp (")
    assert found["sure"] is True
    assert found["labels"] == ["a tones", "d sharp"]
    assert list(found["overall"]) == ["d sharp", "a tones"]
    assert found["duration_s"] == 12.0
    assert found["times_s"] == [0.0, 5.0, 7.0]
    np.testing.assert_allclose(np.sum(found["probabilities"], axis=1), 1, atol=1e-3)
    assert max(found["peaks"]["high"]) == pytest.approx(0.5, abs=1e-3)
    assert len(server.post(wav(), hop_s=1).json()["times_s"]) == 2
    assert server.uploads() == []


def test_what_is_odd_about_a_recording_is_told(server):
    assert "repeated" in server.post(wav(seconds=2.0)).json()["note"]
    assert "cut off" in server.post(wav(seconds=12.0)[:300_000]).json()["note"]


@pytest.mark.parametrize(
    ("body", "asked", "status", "said"),
    [
        (b"", {}, 400, "the file is empty"),
        (wav(), {"hop_s": "0"}, 400, "hop_s=0: give seconds from 0.5 to 60"),
        (wav(), {"hop_s": "nan"}, 400, "hop_s=nan"),
        (wav(), {"hop_s": "five"}, 400, "hop_s=five"),
        (b"no sound", {"name": "a.mp3"}, 422, "a.mp3: cannot be decoded"),
        (b"no sound", {}, 422, "the file cannot be decoded"),
        (b"no sound", {"name": "a\n\x1b[1m" * 99}, 422, r"a\n\x1b[1m"),
        (wav(seconds=61, rate_hz=8_000), {}, 422, "longer than 1 min"),
        (wav(0.0), {}, 422, "nothing but silence"),
        (bytes(2_000_001), {}, 413, "larger than 2 MB"),
        (iter([bytes(1_500_000)] * 2), {}, 413, "larger than 2 MB"),
    ],
)
def test_what_cannot_be_judged_gets_one_sentence(server, body, asked, status, said):
    answer = server.post(body, **asked)
    assert answer.status_code == status
    sentence = answer.json()["error"]
    assert said in sentence
    assert "\n" not in sentence
    assert str(server.folder) not in sentence
    assert server.uploads() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Host": "music.example"}, 403),
        ({"Host": "127.0.0.1.music.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "http://music.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:2"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
    ],
)
def test_requests_of_other_sites_and_forms_are_refused(server, headers, status):
    answer = server.post(wav(), headers)
    assert answer.status_code == status
    assert ("error" in answer.json()) == (status != 200)


def test_two_recordings_at_once_are_both_judged(server):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(server.post, [wav(440.0), wav(622.25)]))
    found = [max(a.json()["overall"].items(), key=lambda p: p[1])[0] for a in answers]
    assert found == ["a tones", "d sharp"]


def test_too_many_at_once_are_told_to_come_again(server):
    with server.stalled_upload(), server.stalled_upload():
        wait_for(lambda: len(server.uploads()) == 2)
        turned_away = server.post(wav())
        assert turned_away.status_code == 503
        assert int(turned_away.headers["Retry-After"]) > 0
        assert requests.get(server.url + "healthz", timeout=60).json()["ok"]
    wait_for(lambda: server.uploads() == [])
    assert wait_for(lambda: server.post(wav()).status_code == 200)


def test_a_mistake_of_the_server_is_told_in_its_terminal(capsys):
    answer = asyncio.run(asgi._refused(None, ValueError("a bug")))
    assert answer.status_code == 500
    assert b"terminal" in answer.body
    assert b"a bug" not in answer.body
    assert "ValueError: a bug" in capsys.readouterr().err


def test_healthz_and_about_say_which_run_answers(server):
    health = requests.get(server.url + "healthz", timeout=60).json()
    labels = ["a tones", "d sharp"]
    assert health == {"ok": True, "model": "my run", "labels": labels}
    about = requests.get(server.url + "api/about", timeout=60).json()
    assert about["limits"]["max_mb"] == 2
    assert about["facts"]["feature"] == "chroma"
    assert about["facts"]["right"].startswith("not known")


def test_facts_tell_how_often_the_run_was_right_and_what_its_split_leaks(tmp_path):
    scores = {"accuracy": 0.705, "n": 46, "interval_95": [0.564, 0.815]}
    results = {"protocol_leaks": "artists leak", "track": scores, "segment": scores}
    (tmp_path / "results.json").write_text(json.dumps(results))
    config = Config(workdir=str(tmp_path), split="track")
    about = asgi.facts(types.SimpleNamespace(config=config))
    assert about["split"] == "track (artists leak)"
    right = "70.5 % of 46 (95 % interval 56.4 to 81.5 %)"
    assert about["right, by track"] == right


def test_openapi_describes_what_is_answered(server):
    described = requests.get(server.url + "openapi.json", timeout=60).json()
    assert described["openapi"].startswith("3.1.")
    assert described["info"].keys() >= {"title", "version"}
    for reference in re.findall(r'"\$ref": *"#/([^"]+)"', json.dumps(described)):
        node = described
        for part in reference.split("/"):
            node = node[part]
    ids = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            ids.append(operation["operationId"])
            assert all("description" in r or "$ref" in r for r in
                       operation["responses"].values())  # fmt: skip
            body = wav() if method == "post" else None
            answer = requests.request(
                method, server.url.rstrip("/") + path, data=body, timeout=60
            )
            assert answer.status_code == 200
            kind = answer.headers["Content-Type"].split(";")[0]
            content = operation["responses"]["200"]["content"][kind]
            if "schema" in content:
                name = content["schema"]["$ref"].rsplit("/", 1)[1]
                schema = described["components"]["schemas"][name]
                assert answer.json().keys() == schema["properties"].keys()
                assert set(schema["required"]) <= answer.json().keys()
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "path", ["", "static/page.js", "nothing", "static/../serve.py"]
)
def test_every_answer_has_the_strict_headers(server, path):
    answer = requests.get(server.url + path, timeout=60)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.status_code == (404 if "nothing" in path or ".." in path else 200)


def test_the_page_asks_nothing_of_other_hosts_and_has_no_inline_code():
    for path in asgi.STATIC.iterdir():
        text = path.read_text()
        addresses = set(re.findall(r"https?://[^\s\"')]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}
        if path.suffix == ".html":
            assert (
                re.findall(r"<style|<script(?![^>]* src=)|\son\w+=|\sstyle=", text)
                == []
            )
        assert "innerHTML" not in text


# --- the program


def test_other_hosts_are_warned_of_and_time_is_bounded(run_folder, tmp_path):
    flags = ("--host=0.0.0.0", "--timeout_s=2")
    with serving(run_folder, tmp_path, *flags, ended_by=signal.SIGTERM) as server:
        warning = server.process.stderr.readline()
        assert warning.startswith("warning: --host=0.0.0.0: ")
        with server.stalled_upload() as connection:
            said = b"".join(iter(lambda: connection.recv(9999), b"")).decode()
        assert said.startswith("HTTP/1.1 504 ")
        assert "longer than 2 s" in said
        with server.stalled_upload():
            wait_for(server.uploads)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=60)


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=f"--port={port}: cannot be used .* 0 for any"
        ):
            serve._listening("127.0.0.1", port)


def test_a_host_that_is_none_is_one_line():
    with pytest.raises(UserError, match=r"--host=nowhere\.invalid"):
        serve._listening("nowhere.invalid", 0)


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        serve.serve(tmp_path, "127.0.0.1", 0, asgi.Limits())


def test_without_its_packages_it_names_the_extra(tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('uvicorn')")
    done = run_module("mgr_jax.serve", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "pip install starlette uvicorn" in done.stderr
    assert "Traceback" not in done.stderr


# --- the page in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "disable-dev-shm-usage", "window-size=1280,1000",
        "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@dataclasses.dataclass(frozen=True)
class Page:
    """The page, freshly opened."""

    driver: object

    def run(self, script, *words):
        return self.driver.execute_script(script, *words)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        (found,) = self.all(selector)
        return found

    def choose(self, *paths):
        self.one("#files").send_keys("\n".join(map(str, paths)))

    def drop(self, **files):
        """Drops files, given as name to bytes, onto the page."""
        texts = {name: base64.b64encode(body).decode() for name, body in files.items()}
        self.run(
            """
            const transfer = new DataTransfer();
            for (const [name, text] of Object.entries(arguments[0])) {
              const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
              transfer.items.add(new File([bytes], name));
            }
            for (const kind of ["dragenter", "dragover", "drop"]) {
              const about = { dataTransfer: transfer, bubbles: true, cancelable: true };
              document.getElementById("drop").dispatchEvent(new DragEvent(kind, about));
            }
            """,
            texts,
        )

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def states(self):
        return [element.text for element in self.all(".state")]

    def finished(self, count=1):
        """The states, once all of so many cards are done or refused."""
        return wait_for(
            lambda: (
                (states := self.states())
                and len(states) == count
                and {"done", "refused"} >= set(states)
                and states
            )
        )

    def at_s(self):
        return self.run("return document.querySelector('audio').currentTime")

    def focused(self):
        return self.run(
            "const one = document.activeElement; return one.id || one.className || "
            "one.localName"
        )


@pytest.fixture
def opened(server, browser):
    browser.get(server.url)
    wait_for(lambda: browser.find_element("id", "limits").text)
    yield Page(browser)
    entries = browser.get_log("browser")
    assert not [e for e in entries if "Content Security Policy" in e["message"]]
    assert not [e for e in entries if e["source"] == "javascript"]
    asked = "return performance.getEntriesByType('resource').map((one) => one.name)"
    for address in browser.execute_script(asked):
        assert address.startswith((server.url, "blob:"))


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    path.write_bytes(wav(622.25, 12.0))
    return path


def test_a_file_is_chosen_read_and_sought_in(opened, song):
    from selenium.webdriver import ActionChains

    opened.choose(song)
    assert opened.finished() == ["done"]
    answer = opened.one(".answer").text
    assert answer.startswith("Probably d sharp (")
    said = opened.one("#said").get_attribute("textContent")
    assert said == f"song.wav: {answer}".replace("\u00a0", " ")
    assert "d sharp" in opened.one(".legend").text
    timeline = opened.one(".timeline")
    width = timeline.size["width"]
    ActionChains(opened.driver).move_to_element_with_offset(
        timeline, round(width / 4), 0
    ).click().perform()
    wait_for(lambda: opened.at_s() == pytest.approx(9.0, abs=0.1))
    assert timeline.get_attribute("aria-valuetext").startswith("0:0")
    assert opened.one(".here").text.startswith("At 0:0")
    share = float(opened.one(".marker").get_attribute("style").split()[1].strip("%;"))
    assert share == pytest.approx(75, abs=1)
    drawn = opened.run(
        "const c = document.querySelector('canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let k = 3; k < d.length; k += 4) n += d[k] > 0; return n / (d.length / 4)"
    )
    assert drawn > 0.5


def test_the_marker_follows_what_is_played(opened, song):
    opened.choose(song)
    opened.finished()
    timeline = opened.one(".timeline")
    timeline.send_keys(" ")
    wait_for(lambda: float(timeline.get_attribute("aria-valuenow")) > 0.2)
    timeline.send_keys(" ")
    assert opened.run("return document.querySelector('audio').paused")


def test_two_files_are_dropped(opened):
    opened.drop(**{"a.wav": wav(440.0), "d.wav": wav(622.25)})
    assert opened.finished(2) == ["done", "done"]
    assert [name.text for name in opened.all(".name")] == ["a.wav", "d.wav"]
    first, second = (element.text for element in opened.all(".answer"))
    assert "a tones" in first
    assert "d sharp" in second


def test_the_page_is_used_by_keyboard_alone(opened, song):
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(3):
        opened.press(Keys.TAB)
        reached.append(opened.focused())
    assert reached == ["files", "record", "hop"]
    opened.choose(song)
    opened.finished()
    for _ in range(20):
        opened.press(Keys.TAB)
        if opened.focused() == "timeline":
            break
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert opened.run(outline) == "solid"
    opened.press(Keys.ARROW_RIGHT)
    wait_for(lambda: opened.at_s() == pytest.approx(5.0))
    opened.press(Keys.END)
    wait_for(lambda: opened.at_s() == pytest.approx(12.0))
    opened.press(Keys.HOME)
    wait_for(lambda: opened.at_s() == 0)
    opened.press(Keys.TAB, Keys.ENTER)
    assert len(wait_for(lambda: opened.all(".windows tbody tr"))) == 3
    heads = [head.text for head in opened.all(".windows thead th")]
    assert heads == ["Time", "a tones", "d sharp"]
    opened.run("document.querySelector('.remove').focus()")
    opened.press(Keys.ENTER)
    assert opened.all(".card") == []
    assert opened.focused() == "files"


def test_what_is_no_recording_is_refused_in_a_sentence(opened, tmp_path):
    (tmp_path / "notes.mp3").write_text("no sound")
    (tmp_path / "large.wav").write_bytes(bytes(2_000_001))
    (tmp_path / "empty.ogg").write_bytes(b"")
    opened.choose(*(tmp_path / n for n in ("notes.mp3", "large.wav", "empty.ogg")))
    assert opened.finished(3) == ["refused"] * 3
    notes, large, empty = (element.text for element in opened.all(".refusal"))
    assert notes.startswith("Refused: the file cannot be decoded (")
    assert large.startswith("Refused: the file is larger than 2 MB")
    assert empty.startswith("Refused: the file is empty")


def test_a_hostile_file_name_is_only_shown(opened, tmp_path):
    path = tmp_path / HOSTILE_NAME
    path.write_bytes(wav())
    opened.choose(path)
    assert opened.finished() == ["done"]
    assert opened.one(".name").text == HOSTILE_NAME
    assert opened.all("img") == []
    assert "taken" not in opened.driver.title


def test_what_the_browser_cannot_play_is_drawn(opened, tmp_path):
    from selenium.webdriver.common.keys import Keys

    soundfile.write(tmp_path / "old.au", tone(440.0, 12.0), 22_050)
    opened.choose(tmp_path / "old.au")
    assert opened.finished() == ["done"]
    wait_for(lambda: opened.one(".mute").is_displayed())
    opened.one(".timeline").send_keys(Keys.ARROW_RIGHT)
    assert opened.one(".here").text.startswith("At 0:05: a tones")


def test_the_microphone_is_recorded_and_judged(opened):
    button = opened.one("#record")
    button.click()
    wait_for(lambda: "0:02" in button.text)
    button.click()
    assert opened.finished() == ["done"]
    assert opened.one(".name").text == "Recording 1.wav"
    assert "repeated" in opened.one(".note").text


def test_a_busy_server_is_asked_again(opened, server, song):
    with server.stalled_upload(), server.stalled_upload():
        wait_for(lambda: len(server.uploads()) == 2)
        opened.choose(song)
        wait_for(
            lambda: any("503" in e["message"] for e in opened.driver.get_log("browser"))
        )
        assert opened.states() == ["working"]
    assert opened.finished() == ["done"]


def test_a_server_that_is_gone_can_be_asked_again(opened, song):
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    opened.driver.execute_cdp_cmd("Network.enable", {})
    opened.driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {"offline": True, **offline}
    )
    opened.choose(song)
    assert opened.finished() == ["refused"]
    opened.driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {"offline": False, **offline}
    )
    opened.one(".again").click()
    assert wait_for(lambda: opened.states() == ["done"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark(opened, song, scheme):
    say = opened.driver.execute_cdp_cmd
    say(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    say(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        opened.choose(song)
        opened.finished()
        opened.run(
            "document.querySelectorAll('details').forEach((one) => one.open = 1)"
        )
        assert opened.run("return document.documentElement.scrollWidth") <= 390
        style = opened.run(
            "const style = getComputedStyle(document.body);"
            "return [style.backgroundColor, style.color]"
        )
        back, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in style)
        assert (back > ink) == (scheme == "light")
        assert abs(back - ink) > 400
    finally:
        say("Emulation.clearDeviceMetricsOverride", {})
        say("Emulation.setEmulatedMedia", {"features": []})
