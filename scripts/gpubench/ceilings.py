# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""What this GPU can do at most, by PyTorch."""


class Ceilings:
    """Rates of this GPU. `product` is that of single products between pauses, `steady` of products without, as prompts run:
    after some 50 ms the chip is at its limit of power and lowers its clock."""

    def __init__(self):
        import torch
        self.torch, self.name = torch, torch.cuda.get_device_name()
        n = 1 << 30
        a, b = (torch.zeros(n // 4, dtype=torch.int32, device="cuda") for _ in range(2))
        self.copy = 2 * n / self.seconds(lambda: b.copy_(a))
        self.read = n / self.seconds(lambda: a.view(torch.float32).sum())
        del a, b
        a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
        self.product = 2 * 8192**3 / self.seconds(lambda: a @ b)
        self.steady = 2 * 8192**3 / self.steady_seconds(lambda: a @ b)
        del a, b
        torch.cuda.empty_cache()

    def seconds(self, work, runs=20):
        event = lambda: self.torch.cuda.Event(enable_timing=True)
        times = []
        for i in range(runs + 3):
            start, end = event(), event()
            start.record()
            work()
            end.record()
            end.synchronize()
            if i >= 3:
                times.append(start.elapsed_time(end) / 1e3)
        return sorted(times)[runs // 2]

    def steady_seconds(self, work, seconds=0.4):
        """Of one call among others without pause, over the later half of some time."""
        runs = max(2, int(seconds / self.seconds(work, 3) / 2))
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        for i in range(2 * runs):
            if i == runs:
                start.record()
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / runs
