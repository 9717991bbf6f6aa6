"""The devices that models run on, and what the warm models hold, asked when Prometheus asks.

GPUs are asked by NVIDIA's library when ``nvidia-ml-py`` is installed (pip install 'overread[gpu]') and there is one;
otherwise nothing is said of them, and nothing is logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from overread.domain.device import Device
from overread.domain.warm import Warm

_log = logging.getLogger(__name__)


class Devices:
    """Call it for the devices of this machine as they stand: the processors as one, and each GPU. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before = _ticks()
        self._nvml = _nvml()

    def __call__(self) -> list[Device]:
        """Ask the kernel and, when there is one, the GPU's driver."""
        with self._lock:
            return [self._processors(), *self._gpus()]

    def _processors(self) -> Device:
        (idle, total), now = self._before, _ticks()
        self._before = now
        passed = now[1] - total
        busy = 1.0 - (now[0] - idle) / passed if passed > 0 else 0.0
        memory = {key: int(value.split()[0]) * 1024 for key, value in _table("/proc/meminfo")}
        most = memory.get("MemTotal", 0)
        return Device("cpu", min(1.0, max(0.0, busy)), most - memory.get("MemAvailable", most), most)

    def _gpus(self) -> Iterator[Device]:
        nvml = self._nvml
        if nvml is None:
            return
        try:
            for n in range(nvml.nvmlDeviceGetCount()):
                yield _gpu(nvml, n)
        except nvml.NVMLError as error:  # it was unplugged, reset, or its driver is being exchanged
            _log.warning("a GPU cannot be asked: %s", type(error).__name__)


def _nvml() -> Any:
    """NVIDIA's library, ready; None without a GPU, without its driver, or without ``nvidia-ml-py``."""
    if not Path("/proc/driver/nvidia").exists():
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        # The edge to a driver: whatever is wrong with it, metrics of the rest must come.
        _log.info("GPUs are not watched: %s", type(error).__name__)
        return None
    return pynvml


def _gpu(nvml: Any, n: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(n)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    busy = _said(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
    celsius = _said(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    watts = _said(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
    return Device(f"cuda:{n}", float(busy or 0.0), int(memory.used), int(memory.total), celsius, watts)


def _said(nvml: Any, ask: Callable[[], float]) -> float | None:
    try:
        return float(ask())
    except nvml.NVMLError:
        return None  # not every card says everything


class WarmCollector(Collector):
    """Turns the devices, and the warm models on them, into gauges."""

    def __init__(self, warm: Callable[[], Sequence[Warm]], devices: Callable[[], Sequence[Device]]) -> None:
        self._warm, self._devices = warm, devices

    def describe(self) -> Iterable[Metric]:
        """Names without numbers."""
        yield from _of_devices(())
        yield from _of_models(())

    def collect(self) -> Iterator[Metric]:
        """Ask once."""
        yield from _of_devices(self._devices())
        yield from _of_models(self._warm())


def _of_devices(devices: Sequence[Device]) -> Iterator[Metric]:
    asked: tuple[tuple[str, str, Callable[[Device], float | None]], ...] = (
        ("device_busy_ratio", "How busy a device was since the last scrape, 0 to 1.", lambda d: d.busy),
        ("device_memory_used_bytes", "Memory of a device that is taken, by whomever.", lambda d: d.used_bytes),
        ("device_memory_bytes", "Memory that a device has.", lambda d: d.total_bytes),
        ("device_temperature_celsius", "Temperature of a device that says it.", lambda d: d.celsius),
        ("device_power_watts", "Power that a device draws, if it says so.", lambda d: d.watts),
    )
    for name, text, ask in asked:
        family = GaugeMetricFamily(f"overread_{name}", text, labels=["device"])
        for device in devices:
            if (value := ask(device)) is not None:
                family.add_metric([device.name], value)
        yield family


def _of_models(warm: Sequence[Warm]) -> Iterator[Metric]:
    asked: tuple[tuple[str, str, Callable[[Warm], float]], ...] = (
        ("model_processes", "Processes in which a model is loaded.", lambda _: 1),
        ("model_processes_busy", "Those of them that read now.", lambda w: float(w.busy)),
        ("model_resident_bytes", "Memory of the machine that a model's processes hold.", lambda w: w.resident_bytes),
        ("model_device_bytes", "Memory of its device that a model may take, as was learned.", lambda w: w.device_bytes),
    )
    for name, text, ask in asked:
        sums: dict[tuple[str, str], float] = {}
        for one in warm:
            key = (one.model, one.device)
            sums[key] = sums.get(key, 0.0) + ask(one)
        family = GaugeMetricFamily(f"overread_{name}", text, labels=["model", "device"])
        for (model, device), value in sorted(sums.items()):
            family.add_metric([model, device], value)
        yield family


def _ticks() -> tuple[int, int]:
    """(idle, all) of the processors' time so far, in the kernel's own count."""
    for key, value in _table("/proc/stat", " "):
        if key == "cpu":
            numbers = [int(n) for n in value.split()[:8]]
            return numbers[3] + numbers[4], sum(numbers)
    return 0, int(time.monotonic())


def _table(path: str, separator: str = ":") -> Iterator[tuple[str, str]]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        key, _, value = line.partition(separator)
        yield key, value.strip()
