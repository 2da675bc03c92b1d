"""What a notebook shows of a model, a history and evidence."""

import re

import torch

import pyrovae as pv
from pyrovae import likelihoods, nets
from pyrovae.declare import html_table


def cells(text):
    return re.findall(r"<td[^>]*>(.*?)</td>", text, re.DOTALL)


def test_a_table_escapes_what_it_holds():
    found = html_table("a < b", [("<script>", "1\n2")], ["x", "y"])
    assert "<script>" not in found
    assert cells(found) == ["&lt;script&gt;", '<pre style="margin: 0">1\n2</pre>']
    assert ">a &lt; b</caption>" in found


def test_numbers_under_a_head_stand_to_the_right_and_sentences_to_the_left():
    def sides(table):
        return re.findall(r"<t[dh] style=.text-align: (\w+)", table)

    assert sides(html_table("", [("a", 1.0), ("...",)], ["x", "y"])) == [
        *["left", "right"] * 2,
        "left",
    ]
    assert sides(html_table("", [("log p(x)", "on average below the truth")])) == ["left", "left"]


def test_model_history_and_evidence():
    torch.manual_seed(0)
    vae = pv.VAE(3, 2, likelihood=likelihoods.Gaussian(0.5), encoder=nets.MLP(4))
    text = vae._repr_html_()
    assert "Gaussian(scale=0.5)" in cells(text)
    count = sum(p.numel() for p in vae.parameters())
    assert f"{count:,} (float32, cpu)" in cells(text)
    x = torch.randn(8, 3)
    history = vae.fit(x, epochs=10, capture=False)
    shown = cells(history._repr_html_())
    assert "10 epochs" in history._repr_html_()
    assert f"{history['train_bound'][0]:.3f}" in shown
    assert f"{history['train_bound'][-1]:.3f}" in shown
    assert f"{history['train_bound'][4]:.3f}" not in shown  # left out in the middle
    evidence = vae.log_marginal(x, num_particles=50)
    shown = cells(evidence._repr_html_())
    assert shown[0] == "log p(x)"
    assert shown[1].startswith(f"{evidence.mean():.6g} ± ")
