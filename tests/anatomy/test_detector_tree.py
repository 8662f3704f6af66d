"""The detector's tree of shapes counts what the live network has."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.tree import walk
from pellucid.networks.detector import Detector, DetectorConfig

CONFIGS = (DetectorConfig(10), DetectorConfig(2, (4, 6, 8), grid=0, d_head=5), DetectorConfig(1, (8, 8), grid=1))


@pytest.mark.parametrize("config", CONFIGS)
def test_counts_agree_with_the_live_network(config):
    network, tree = Detector(config, seed=None), families.detector(config, 64, 96)
    counted = counts.parameters(tree)
    by_path = {}
    for name, parameter in network.named_parameters():
        path = name.rpartition(".")[0]
        by_path[path] = by_path.get(path, 0) + parameter.numel()
    assert counted.by_path == by_path
    assert counted.total == sum(by_path.values())
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        network(torch.empty(2, 3, 64, 96))
    assert 2 * 2 * compute.forward(tree).total == counter.get_total_flops()


def test_leaves_stand_in_the_order_in_which_data_flow():
    config = CONFIGS[1]
    network = Detector(config).eval()
    seen = []
    for name, module in network.named_modules():
        if name and not list(module.children()):
            module.register_forward_hook(lambda *_given, name=name: seen.append(name))
    network(torch.rand(1, 3, 16, 16))
    leaves = [visit.path for visit in walk(families.detector(config, 16, 16)) if "activation" not in visit.path]
    assert seen == leaves


def test_the_default_detector():
    counted = counts.parameters(families.detector(DetectorConfig(10), 128, 128))
    assert counted.total == 435_102
    assert counted.by_kind["head"] == 2 * 9 * 64 * 64 + (9 * 64 + 1) * 14
