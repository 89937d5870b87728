"""Download: chunks, resume and retries against a loopback server that answers like Gaia's TAP and DataLink."""

import io
import re
import threading
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from archive_files import Stars, individual_table, raw_table, write_table
from astropy.io.votable import from_table, writeto
from astropy.table import Table

from spectangle.archives import GaiaDataLink, LabelSources, prepare
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

pytest.importorskip("astroquery")


class Archive(ThreadingHTTPServer):
    """Serve RVS spectra of some stars; note the requests; fail the first `failures` of them."""

    def __init__(self, stars: Stars, folder: Path, without: set[int]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.stars, self.folder, self.without = stars, folder, without
        self.requests: list[dict] = []
        self.queries: list[str] = []
        self.failures = 0
        self.forgotten: set[int] = set()  # stars that an answer lacks, until it is asked for them alone
        self.never: set[int] = set()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        form = {key.upper(): value for key, value in form.items()}
        if self.server.failures:
            self.server.failures -= 1
            return self._send(503, "text/plain", b"the archive is down for maintenance")
        if self.path.startswith("/tap-server/tap/sync"):
            return self._send(200, "application/x-votable+xml", self._query(form["QUERY"]))
        assert self.path.startswith("/data-server/data"), self.path
        self.server.requests.append(form)
        self._send(200, "application/zip", self._spectra(form))

    def _query(self, query: str) -> bytes:
        self.server.queries.append(query)
        assert "has_rvs" in query
        asked = {int(digits) for digits in re.findall(r"\d{10,}", query)}
        ids = [i for i in self.server.stars.ids.tolist() if i in asked and i not in self.server.without]
        buffer = io.BytesIO()
        document = from_table(Table({"source_id": np.array(ids, dtype=np.int64)}))
        document.get_first_table().fields[0].ID = "SOURCE_ID"  # as the archive writes it, beside name="source_id"
        writeto(document, buffer)
        return buffer.getvalue()

    def _spectra(self, form: dict) -> bytes:
        stars, folder = self.server.stars, self.server.folder
        asked = [int(text) for text in form["ID"].split(",")]
        lost = self.server.never | (self.server.forgotten if len(asked) > len(self.server.forgotten) else set())
        rows = [i for i, source_id in enumerate(stars.ids.tolist()) if source_id in asked and source_id not in lost]
        suffix = {"votable": ".xml", "fits": ".fits", "csv": ".csv", "ecsv": ".ecsv"}[form["FORMAT"]]
        if form["DATA_STRUCTURE"] in ("RAW", "DATAMODEL_GAIA"):
            product = "RVS" if form["RETRIEVAL_TYPE"] == "ALL" else form["RETRIEVAL_TYPE"]
            members = {f"{product}_RAW{suffix}": raw_table(stars)[rows]} if rows else {}
            if form["RETRIEVAL_TYPE"] == "ALL":
                members |= {
                    f"{other}_RAW{suffix}": Table({"source_id": [1], "mag": [2.0]})
                    for other in ("EPOCH_PHOTOMETRY", "XP_CONTINUOUS")
                }
        else:
            members = {
                f"{form['RETRIEVAL_TYPE']}-{form['RELEASE']} {stars.ids[i]}{suffix}": individual_table(stars, i)
                for i in rows
            }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, table in members.items():
                file = write_table(folder / name, table)
                archive.write(file, name)
                file.unlink()
        return buffer.getvalue()

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def archive(tmp_path):
    stars = Stars(11, n_pixels=301)
    (tmp_path / "server").mkdir()
    server = Archive(stars, tmp_path / "server", without={int(stars.ids[4])})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    stars.table().write(tmp_path / "stars.ecsv")
    yield server
    server.shutdown()
    server.server_close()


def source(archive, tmp_path, **options) -> GaiaDataLink:
    options = {"chunk": 4, "pause": 0.01, "retries": 3} | options
    address = f"http://127.0.0.1:{archive.server_port}/"
    return GaiaDataLink(str(tmp_path / "stars.ecsv"), str(tmp_path / "gaia"), server=address, **options)


FORMS = [("RVS", "RAW", "votable"), ("RVS", "INDIVIDUAL", "fits"), ("RVS", "RAW", "ecsv"), ("RVS", "INDIVIDUAL", "csv")]
FORMS += [("MEAN_SPECTRUM_RVS", "DATAMODEL_GAIA", "fits"), ("MEAN_SPECTRUM_RVS", "DATAMODEL_STANDARD", "votable")]


@pytest.mark.parametrize("product, structure, form", FORMS)
def test_download_to_survey(archive, tmp_path, product, structure, form):
    link = source(archive, tmp_path, retrieval_type=product, data_structure=structure, format=form)
    result = prepare(link, tmp_path / "my.h5", LabelSources(table=str(tmp_path / "stars.ecsv")), report=False)
    assert result.tally.after_snr == 10
    assert [len(request["ID"].split(",")) for request in archive.requests] == [4, 4, 2]
    assert archive.requests[0]["RETRIEVAL_TYPE"] == product and archive.requests[0]["DATA_STRUCTURE"] == structure
    assert not any(str(archive.stars.ids[4]) in request["ID"] for request in archive.requests)
    with Survey(tmp_path / "my.h5") as survey:
        assert set(survey.source_id) == set(np.delete(archive.stars.ids, 4))


def test_resume_asks_only_for_what_is_missing(archive, tmp_path):
    paths = source(archive, tmp_path).download()
    paths[1].write_bytes(b"half")
    paths[2].unlink()
    archive.requests.clear()
    assert source(archive, tmp_path).download() == paths
    assert [len(request["ID"].split(",")) for request in archive.requests] == [4, 2]
    assert not list((tmp_path / "gaia").glob("*.part"))


def test_retries_then_a_sentence(archive, tmp_path):
    archive.failures = 2
    assert len(source(archive, tmp_path).download()) == 3
    archive.failures = 100
    with pytest.raises(SpectangleError, match=r"did not send .* in 3 attempts.*Run the same command again"):
        source(archive, tmp_path, format="csv").download()


def test_a_list_that_knows_has_rvs_is_believed(archive, tmp_path):
    flags = np.zeros(11, dtype=bool)
    flags[2:5] = True
    archive.stars.table(has_rvs=flags).write(tmp_path / "stars.ecsv", overwrite=True)
    source(archive, tmp_path).download()
    assert not archive.queries and len(archive.requests) == 1


def test_the_list_and_the_table_that_is_asked_may_have_other_names(archive, tmp_path):
    Table({"star": archive.stars.ids[:3]}).write(tmp_path / "stars.ecsv", overwrite=True)
    source(archive, tmp_path, id_column="star", source_table="gaiadr4.gaia_source").download()
    assert "FROM gaiadr4.gaia_source" in archive.queries[0] and str(archive.stars.ids[2]) in archive.requests[0]["ID"]


def test_no_star_with_a_spectrum(archive, tmp_path):
    archive.without = set(archive.stars.ids.tolist())
    with pytest.raises(SpectangleError, match=r"stars\.ecsv.*has_rvs"):
        source(archive, tmp_path).download()


def test_only_download_without_labels(archive, tmp_path, capsys):
    assert prepare(source(archive, tmp_path), tmp_path / "my.h5", LabelSources()) is None
    assert "Next: spectangle prepare spectra=" in capsys.readouterr().out


def test_chunk_limit(archive, tmp_path):
    with pytest.raises(SpectangleError, match=r"archive\.chunk=5000"):
        source(archive, tmp_path, chunk=5000)


def test_stars_that_an_answer_lacks_are_asked_for_again(archive, tmp_path):
    archive.forgotten = set(archive.stars.ids[[1, 2]].tolist())
    paths = source(archive, tmp_path).download()
    assert [len(request["ID"].split(",")) for request in archive.requests] == [4, 2, 4, 2] and len(paths) == 4
    archive.requests.clear()
    assert source(archive, tmp_path).download() == paths and not archive.requests
    result = prepare(
        source(archive, tmp_path), tmp_path / "my.h5", LabelSources(table=str(tmp_path / "stars.ecsv")), report=False
    )
    assert result.tally.after_snr == 10


def test_stars_that_never_come_are_named_and_asked_for_by_the_next_run(archive, tmp_path, capsys):
    archive.never = {int(archive.stars.ids[7])}
    result = prepare(
        source(archive, tmp_path), tmp_path / "my.h5", LabelSources(table=str(tmp_path / "stars.ecsv")), report=False
    )
    assert result.tally.after_snr == 9
    assert f"the archive sent no spectrum of star {archive.stars.ids[7]}" in "".join(result.left_out)
    assert "sent no spectrum of 1 of 10 stars" in " ".join(capsys.readouterr().out.split())
    archive.requests.clear()
    archive.never = set()
    source(archive, tmp_path).download()
    assert [request["ID"] for request in archive.requests] == [str(archive.stars.ids[7])]


def test_an_empty_answer_is_no_chunk(archive, tmp_path):
    archive.never = set(archive.stars.ids.tolist())
    with pytest.raises(SpectangleError, match="sent none of 4 spectra"):
        source(archive, tmp_path).download()
    assert not list((tmp_path / "gaia").iterdir())


def test_other_products_of_a_download_are_named_not_read(archive, tmp_path):
    link = source(archive, tmp_path, retrieval_type="ALL")
    result = prepare(link, tmp_path / "my.h5", LabelSources(table=str(tmp_path / "stars.ecsv")), report=False)
    assert result.tally.after_snr == 10
    said = "\n".join(result.left_out)
    assert (
        "EPOCH_PHOTOMETRY_RAW.fits: is another product than RVS mean spectra" in said
        and "XP_CONTINUOUS_RAW.fits" in said
    )
