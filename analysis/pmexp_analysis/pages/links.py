"""Where the runs of a report are links in MLflow's pages."""

from pmexp.masking import masked
from pmexp_analysis.sources.experiment import Experiment

_LOCAL = "http://127.0.0.1:5000"  # where `make ui` serves


def run_links(experiment: Experiment) -> list[tuple[str, str]]:
    """(name, address) of every run whose MLflow run is known. A tracker that is no server has its pages where
    `make ui` shows them."""
    mirrored = [m for m in experiment.members if m.run.tracking_uri and m.run.mlflow_id]
    shown = {uri: masked(uri) for uri in {member.run.tracking_uri or "" for member in mirrored}}
    links = []
    for member in sorted(mirrored, key=lambda member: member.labels):
        uri, at = shown[member.run.tracking_uri or ""], member.labels
        server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else _LOCAL
        name = f"{at.task} / {at.system} / {at.variant} seed {at.seed}"
        links.append((name, f"{server}/#/runs/{member.run.mlflow_id}"))
    return links
