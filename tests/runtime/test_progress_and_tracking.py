"""Progress in log files, and how W&B is reached."""

import logging
import socket
import ssl
import threading
import time
from urllib.error import URLError

import pytest
import pytorch_lightning as pl
import torch
import wandb
from torch.utils.data import DataLoader

from detection.runtime import tracking
from detection.runtime.line_progress import LineProgress
from detection.runtime.tracking import has_key, wandb_logger


class Toy(pl.LightningModule):
    """One weight; three batches an epoch."""

    name = "toy"

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        self.log("toy/loss", self.weight.sum(), prog_bar=True, batch_size=1)
        return (self.weight - 1).square().sum()

    def validation_step(self, batch, index):
        self.log("toy/val_loss", self.weight.sum(), prog_bar=True, batch_size=1)

    def test_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lines_tell_stage_step_values_and_time(tmp_path, caplog):
    caplog.set_level(logging.INFO, "detection")
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[LineProgress(seconds=0)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(Toy(), DataLoader(range(3)), DataLoader(range(1)))
    lines = [r.getMessage() for r in caplog.records if r.name == "detection.runtime.line_progress"]
    steps = [line.split(",")[0] for line in lines if "step" in line]
    assert steps == [f"toy: step {n}/6" for n in range(1, 7)]
    assert [line for line in lines if "validation" in line] == [
        "toy, validation: 1/1, 0 s left"
    ] * 2
    assert "loss " in lines[0]
    assert lines[0].endswith("s left")
    assert sum("val_loss" in line and "step" not in line for line in lines) == 1  # the last one
    caplog.clear()
    trainer.test(Toy(), DataLoader(range(2)), verbose=False)
    assert [m.split(",")[0] for m in caplog.messages if "test" in m] == ["test: 1/2", "test: 2/2"]


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No key anywhere."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.wandb.example")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)


@pytest.mark.usefixtures("nobody")
def test_without_a_key_wandb_is_offline_and_says_how_to_upload(tmp_path, caplog):
    caplog.set_level(logging.INFO, "detection")
    assert not has_key()
    logger = wandb_logger(project="test", save_dir=str(tmp_path / "run"))
    logger.log_hyperparams({"seed": 1})  # begins the run: without a prompt
    logger.log_metrics({"test/map": 0.5})
    wandb.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert f"wandb sync {tmp_path}/run/wandb/offline-run-*" in caplog.text


@pytest.mark.usefixtures("nobody")
def test_a_key_is_found_where_wandb_login_leaves_it(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine api.wandb.example\n  login user\n  password key\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key()
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert has_key()


@pytest.mark.parametrize("speaks", [True, False])
def test_a_server_that_does_not_answer_is_told_in_time(speaks, monkeypatch):
    """One that answers anything is there; one that accepts and is silent, or refuses, is not."""
    monkeypatch.setattr(tracking, "ANSWER_S", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if speaks:
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                else:
                    time.sleep(2)

        thread = threading.Thread(target=serve)
        thread.start()
        begun = time.monotonic()
        assert tracking.answers(address) is speaks
        assert time.monotonic() - begun < 2
        thread.join()
    assert not tracking.answers(address)  # nobody listens any more


def test_a_certificate_that_python_does_not_trust_is_an_answer(monkeypatch):
    """W&B brings certificates of its own."""

    def refuse(*_, **__):
        raise URLError(ssl.SSLCertVerificationError("unable to get local issuer certificate"))

    monkeypatch.setattr(tracking, "urlopen", refuse)
    assert tracking.answers("https://example.org")


def test_a_run_goes_on_offline_where_wandb_is_silent(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logger = wandb_logger(project="test", save_dir=str(tmp_path / "run"))
    logger.log_metrics({"loss": 1.0})
    tracking.finish_wandb(0)
    assert "does not answer" in caplog.text
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
