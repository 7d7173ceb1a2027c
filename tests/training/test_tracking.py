import pytest

from olmoe_ft.training.tracking import wandb_mode


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_auto_is_offline_without_a_key_and_online_with_one(monkeypatch, no_login):
    assert wandb_mode("auto") == "offline"
    no_login.write_text("machine elsewhere.example login user password secret\n")
    assert wandb_mode("auto") == "offline"
    no_login.write_text("machine wandb.example login user password secret\n")
    assert wandb_mode("auto") == "online"
    no_login.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert wandb_mode("auto") == "online"


def test_the_environment_decides_auto_and_the_recipe_everything_else(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "off"
    assert wandb_mode("online") == "online" and wandb_mode("off") == "off"
