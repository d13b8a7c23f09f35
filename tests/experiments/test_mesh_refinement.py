"""Mesh refinement: quadtrees against scikit-fem, markings against their definitions, the policies' symmetries and gradient."""

import itertools

import numpy as np
import pandas as pd
import pytest
import skfem
import torch
from conftest import ROOT
from sections import section
from skfem.helpers import dot

from experiments.mesh_refinement import experiment, markings, policies, problems, quadtree, selections, training
from experiments.mesh_refinement.names import FAMILIES
from experiments.mesh_refinement.transport import Flow, velocities
from secondlook.study import claims, measures
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.place import Place

MESHES = Experiment(ROOT, "mesh_refinement")
SIZES = problems.Sizes((0.1, 0.2), (0.1, 0.2), (0.1, 0.3))
GRID = quadtree.Grid(2, 3)


def rng(seed=0):
    return np.random.default_rng(seed)


def given(function, grid=GRID):
    return quadtree.project(grid, *quadtree.approximate(grid, lambda x, y: function(x, y)[None] + 0 * x * y))


def drawn(count=3, grid=GRID, family="bumps", seed=0):
    return quadtree.project(grid, *problems.functions(family, count, 2, SIZES, grid, rng(seed)))


def refined(batch=1, cuts=6, grid=GRID, seed=0):
    """A mesh with cells of several sizes, the same in every problem of the batch."""
    mesh, chance = quadtree.Mesh.uniform(grid, batch), rng(seed)
    for _ in range(cuts):
        possible = torch.nonzero(mesh.level[0] < grid.depth)[:, 0].numpy()
        mesh.refine(torch.full((batch,), int(chance.choice(possible))))
    return mesh


def basis(mesh):
    """The same mesh as scikit-fem has it: squares that share no vertex, with discontinuous bilinear functions."""
    x, y, h = (a[0].numpy() for a in (mesh.column * mesh.side, mesh.row * mesh.side, mesh.side))
    p = np.stack([np.stack([x, x + h, x + h, x]), np.stack([y, y, y + h, y + h])])  # coordinate, corner, cell
    points, cells = p.transpose(0, 2, 1).reshape(2, -1), np.arange(4 * len(h)).reshape(-1, 4).T
    return skfem.CellBasis(skfem.MeshQuad(points, cells), skfem.ElementQuad1(), intorder=12)


def smooth(x, y):
    return np.exp(x) * np.sin(3 * y) + x * y


def squared_error(mesh):
    """Of the L2 projection of `smooth`, by scikit-fem."""
    space = basis(mesh)
    mass = skfem.BilinearForm(lambda u, v, _: u * v).assemble(space)
    load = skfem.LinearForm(lambda v, w: smooth(*w.x) * v).assemble(space)
    found = skfem.solve(mass, load)
    return skfem.Functional(lambda w: (w["u"] - smooth(*w.x)) ** 2).elemental(space, u=space.interpolate(found)), found, space


def torch_smooth(x, y):
    return torch.exp(x) * torch.sin(3 * y) + x * y


def test_errors_of_cells_are_those_of_scikit_fem_on_meshes_with_hanging_nodes():
    mesh = refined(cuts=5)
    tables = given(torch_smooth)
    expected, found, _ = squared_error(mesh)
    ours = tables.error.gather(1, mesh.cells)[0].numpy()
    assert ours == pytest.approx(expected, rel=1e-6)  # Gauss's rules of both are exact to about 1e-9 here
    own = quadtree.corners(mesh, problems.coefficients(mesh, tables))
    values = own.ours(own.value)[0, :, :, 0].numpy()[:, [0, 1, 3, 2]]  # scikit-fem goes round
    assert values.ravel() == pytest.approx(found, abs=1e-6)


def test_a_cut_takes_away_what_the_table_says():
    mesh, tables = refined(2, 4), drawn(2)
    before = tables.error.gather(1, mesh.cells).sum(1)
    fall = markings.fall(mesh, tables)[:, 1]
    assert (fall > 0).all()
    mesh.refine(torch.tensor([1, 1]))
    assert (before - tables.error.gather(1, mesh.cells).sum(1)).numpy() == pytest.approx(fall.numpy(), rel=1e-9)


def test_what_lies_in_the_space_has_no_error():
    tables = given(lambda x, y: 3 - x + 2 * y + 5 * x * y)
    assert tables.fall.max() < 1e-28 and tables.error.max() < 1e-13  # rounding, of details and of a difference of squares
    mesh = refined()
    around = quadtree.corners(mesh, problems.coefficients(mesh, tables))
    assert (around.there * (around.value - around.ours(around.value))).abs().max() < 1e-12
    assert markings.zz(mesh, tables).max() < 1e-11


def test_errors_fall_by_the_order_of_the_elements():
    grid = quadtree.Grid(2, 5)
    tables = given(torch_smooth, grid)
    levels = torch.split(tables.error[0], [size**2 for size in grid.sizes])
    slopes = np.diff([np.log2(level.sum().sqrt().item()) for level in levels])
    assert slopes[-1] == pytest.approx(-2, abs=0.01)  # bilinear: h^2, up to terms of the next order, h^2 smaller


def test_projection_to_parents_undoes_the_step_to_children():
    c = torch.from_numpy(rng().standard_normal((2, 4, 4, 4)))
    assert quadtree.parents(quadtree.children(c)).numpy() == pytest.approx(c.numpy(), abs=1e-12)


def test_a_mesh_covers_the_square_once():
    mesh = refined(2, 10)
    assert (mesh.side**2).sum(1).numpy() == pytest.approx(1, abs=1e-14)
    assert len(mesh.cells[0].unique()) == mesh.level.shape[1]
    width = 1 << (GRID.depth - mesh.level[0])
    for cell, (row, column) in enumerate(zip(mesh.row[0] * width, mesh.column[0] * width, strict=True)):
        block = mesh.slot[0, row : row + width[cell], column : column + width[cell]]
        assert (block == cell).all()
    assert torch.bincount(mesh.slot[0].flatten()).tolist() == (width**2).tolist()


def test_a_finest_cell_is_not_cut():
    mesh = refined(1, 0, quadtree.Grid(2, 1))
    mesh.refine(torch.tensor([0]))
    with pytest.raises(ValueError, match="a finest cell cannot be cut"):
        mesh.refine(torch.tensor([0]))


def test_the_recovered_gradient_is_the_mean_over_sectors():
    mesh, tables = refined(cuts=5), given(torch_smooth)
    _, found, space = squared_error(mesh)
    gradient = space.interpolate(found).grad  # coordinate, cell, point: not at corners, so from the values
    assert gradient.shape[0] == 2
    h, u = mesh.side[0].numpy(), found.reshape(-1, 4)  # corners go round
    gx = np.stack([u[:, 1] - u[:, 0], u[:, 1] - u[:, 0], u[:, 2] - u[:, 3], u[:, 2] - u[:, 3]], 1) / h[:, None]
    gy = np.stack([u[:, 3] - u[:, 0], u[:, 2] - u[:, 1], u[:, 2] - u[:, 1], u[:, 3] - u[:, 0]], 1) / h[:, None]
    x0, y0 = (mesh.column * mesh.side)[0].numpy(), (mesh.row * mesh.side)[0].numpy()
    X, Y = np.stack([x0, x0 + h, x0 + h, x0], 1), np.stack([y0, y0, y0 + h, y0 + h], 1)

    def at(cell, x, y):
        """The gradient of the cell's bilinear function at a point."""
        s, t = (x - x0[cell]) / h[cell], (y - y0[cell]) / h[cell]
        return np.array([(1 - t) * gx[cell, 0] + t * gx[cell, 2], (1 - s) * gy[cell, 0] + s * gy[cell, 1]])

    recovered = np.zeros((len(h), 4, 2))
    for cell, corner in itertools.product(range(len(h)), range(4)):
        x, y = X[cell, corner], Y[cell, corner]
        eps, met = 1e-6, []
        for dx, dy in itertools.product((-eps, eps), repeat=2):
            inside = (x0 < x + dx) & (x + dx < x0 + h) & (y0 < y + dy) & (y + dy < y0 + h)
            met += [at(other, x, y) for other in np.flatnonzero(inside)]
        recovered[cell, corner] = np.mean(met, 0) - at(cell, x, y)
    field = skfem.Functional(lambda w: dot(w["d"], w["d"]))
    vector = space.with_element(skfem.ElementVector(skfem.ElementQuad1()))
    expected = field.elemental(vector, d=vector.interpolate(_vector(vector, recovered)))
    assert markings.zz(mesh, tables)[0].numpy() ** 2 == pytest.approx(expected, rel=1e-5, abs=1e-12)


def _vector(space, values):
    """Degrees of freedom of a vector field from its (cell, corner, coordinate) values."""
    found = np.zeros(space.N)
    for corner in range(4):
        for coordinate in range(2):
            found[space.element_dofs[2 * corner + coordinate]] = values[:, corner, coordinate]
    return found


def test_the_oracle_cuts_where_the_error_falls_most():
    mesh, tables = refined(3, 3), drawn(3)
    possible = [torch.nonzero(mesh.level[b] < GRID.depth)[:, 0] for b in range(3)]
    best = []
    for b in range(3):
        errors = []
        for cell in possible[b]:
            trial = refined(3, 3)
            trial.refine(torch.where(torch.arange(3) == b, cell, 0))
            errors.append(tables.error.gather(1, trial.cells)[b].sum())
        best.append(min(errors).item())
    errors = markings.spend(mesh, tables, 1, markings.fall)
    assert errors[:, 1].numpy() == pytest.approx(best, rel=1e-12)
    assert errors[:, 1].numpy() == pytest.approx(tables.error.gather(1, mesh.cells).sum(1).numpy(), rel=1e-9)


def test_bulk_marks_the_fewest_cells_that_hold_the_share():
    marks = markings.marked(torch.tensor([[1.0, 3.0, 2.0, 0.0]]).double(), 0.7)  # squares 1, 9, 4 of 14
    assert marks.tolist() == [[0, 3, 2, 0]]
    mesh, tables = quadtree.Mesh.uniform(GRID, 1), drawn(1)
    first = markings.marked(markings.zz_in_l2(mesh, tables), 0.9)
    count = int((first > 0).sum())
    markings.spend(mesh, tables, count, markings.Bulk(markings.zz_in_l2, 0.9))
    assert mesh.level[0, : GRID.coarse**2].tolist() == (first[0] > 0).long().tolist()  # a first child keeps its parent's place


@pytest.mark.parametrize("name", policies.MADE)
def test_scores_follow_the_cells_when_these_are_numbered_anew(name):
    mesh, tables = refined(2, 6), drawn(2)
    network = policies.policy(name, 8, 0)
    scores = network(*policies.observe(mesh, tables, 0.5))
    order = torch.from_numpy(rng(1).permutation(mesh.level.shape[1]))
    new = quadtree.Mesh(
        GRID, *(a[:, order] for a in (mesh.level, mesh.row, mesh.column)), order.argsort()[mesh.slot.long()].short()
    )
    found = network(*policies.observe(new, tables, 0.5))
    assert found.detach().numpy() == pytest.approx(scores[:, order].detach().numpy(), abs=1e-5)  # float32


@pytest.mark.parametrize("turn", [lambda u: lambda x, y: u(1 - x, y), lambda u: lambda x, y: u(y, x)])
def test_what_is_seen_does_not_change_when_the_square_is_turned(turn):
    mesh, other = quadtree.Mesh.uniform(GRID, 1), quadtree.Mesh.uniform(GRID, 1)
    here, _ = policies.look(mesh, given(torch_smooth))
    there, _ = policies.look(other, given(turn(torch_smooth)))
    assert here.sort(1).values.flatten().tolist() == pytest.approx(there.sort(1).values.flatten().tolist(), abs=1e-6)


def test_the_surrogate_has_the_gradient_of_the_expected_return():
    logits, gains = (
        torch.tensor([0.3, -0.5], dtype=torch.float64, requires_grad=True),
        torch.tensor([2.0, 5.0], dtype=torch.float64),
    )
    (expected,) = torch.autograd.grad(-(logits.softmax(0) * gains).sum(), logits)
    found = torch.zeros(2, dtype=torch.float64)
    curvature = torch.zeros(2, 2, dtype=torch.float64)
    for cells in itertools.product(range(2), repeat=3):  # every three episodes of one cut on two cells
        chosen, logs = torch.tensor(cells), logits.log_softmax(0)
        probability = logs.detach()[chosen].sum().exp()
        loss = policies.surrogate(logs[chosen][None, :, None], gains[chosen][None, :, None])
        (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
        found += probability * gradient.detach()
        curvature += probability * torch.stack([torch.autograd.grad(g, logits, retain_graph=True)[0] for g in gradient])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    hessian = torch.autograd.functional.hessian(lambda z: -(z.softmax(0) * gains).sum(), logits.detach())
    assert curvature.flatten().tolist() == pytest.approx(hessian.flatten().tolist(), abs=1e-12)


def test_an_episode_pays_what_its_cuts_take_from_the_error():
    tables = drawn(4)
    network = policies.policy("independent", 4, 0)
    logs, to_go = training.on_functions(GRID, 5, tables)(network, np.arange(4), torch.Generator().manual_seed(0))
    assert logs.shape == to_go.shape == (4, 5)
    assert (to_go.diff(dim=1) <= 1e-12).all() and (logs < 0).all()


def flow(count=3, family="circles"):
    grid, chance = quadtree.Grid(2, 3, periodic=True), rng(4)
    finest, residual = problems.functions(family, count, 1, SIZES, grid, chance)
    return Flow(grid, finest, residual.sum((1, 2)), velocities(count, chance), 4)


def test_on_the_finest_mesh_transport_has_no_error_but_that_of_the_finest_cells():
    moved = flow()
    mesh = quadtree.Mesh.uniform(moved.grid, 3)
    for _ in range((4**3 - 1) // 3 * 4):
        mesh.refine((mesh.level < 3).float().argmax(1))
    assert moved.carry(mesh).numpy() == pytest.approx(moved.lost.numpy(), rel=1e-9)


def test_transport_carries_the_function_by_the_velocity():
    moved = flow()
    moved.carry(quadtree.Mesh.uniform(moved.grid, 3))
    start = flow()
    for b, (rows, columns) in enumerate(start.velocity.tolist()):
        assert torch.equal(moved.true[b], start.true[b].roll((4 * rows, 4 * columns), (0, 1)))
    assert not torch.equal(moved.now, moved.true)


def test_a_coarse_mesh_loses_what_its_projection_takes():
    moved = flow()
    mesh = refined(3, 4, moved.grid)
    tables = moved.seen()
    c = problems.on_finest(mesh, problems.coefficients(mesh, tables))
    expected = tables.error.gather(1, mesh.cells).sum(1)
    assert problems.squared_distance(c, moved.true).numpy() == pytest.approx(expected.numpy(), rel=1e-9)
    assert problems.projected(mesh, c).numpy() == pytest.approx(c.numpy(), abs=1e-12)


def test_upstream_is_whence_the_function_comes():
    moved = flow(1)
    mesh = quadtree.Mesh.uniform(moved.grid, 1)
    cells = policies.upstream(mesh, torch.tensor([[8, 0]]))  # half the square, which has 16 finest cells to a side
    assert cells.tolist() == [[2, 3, 0, 1]]


def test_an_estimator_that_looks_upstream_sees_what_will_arrive():
    """On a mesh of equal cells: the largest of what is there now and of what is half of the square away."""
    moved = flow(1)
    mesh, tables = quadtree.Mesh.uniform(moved.grid, 1), moved.seen()
    now = markings.jumps(mesh, tables)
    assert torch.equal(policies.along(markings.jumps, 1, torch.tensor([[8, 0]]), 0)(mesh, tables), now)
    expected = torch.maximum(now, now[:, [2, 3, 0, 1]])
    assert torch.allclose(policies.along(markings.jumps, 1, torch.tensor([[8, 0]]), 1)(mesh, tables), expected, rtol=1e-12)


def test_estimates_go_with_the_power_of_the_side_that_is_said():
    """The jumps of a function that jumps, and the estimate in L2 of one with a kink, as it is of the gradient."""
    grid = quadtree.Grid(4, 2, periodic=True)
    jump, kink = torch.zeros(2, 1, 2, 2, 4, dtype=torch.float64)
    jump[..., 1, 0], kink[..., 0, 1], kink[..., 1, 1] = 1, 1, -1
    for name, function in {"jumps": jump, "ZZ, L2": kink}.items():
        for _ in range(grid.depth + 1):
            function = quadtree.children(function)
        tables, estimate = quadtree.project(grid, function), markings.rules(torch.Generator())[name]
        coarse, fine = quadtree.Mesh.uniform(grid, 1), quadtree.Mesh.uniform(grid, 1)
        for _ in range(16):
            fine.refine((fine.level == 0).float().argmax(1))
        ratio = estimate(coarse, tables).max() / estimate(fine, tables).max()
        assert ratio.item() == pytest.approx(2 ** markings.SIDES[name], rel=1e-9)


def test_the_present_policy_is_paid_for_the_error_before_the_function_moves():
    pool = flow(4)
    network = policies.policy("independent", 4, 0, 2)
    logs, to_go = training.on_present(pool, 5, 2)(network, np.arange(4), torch.Generator().manual_seed(0))
    assert logs.shape == to_go.shape == (4, 5) and (to_go >= 0).all()
    mesh = quadtree.Mesh.uniform(pool.grid, 4)
    before = problems.squared_distance(problems.projected(mesh, pool.true), pool.true) + pool.lost
    assert (to_go[:, 0] < (before / pool.lost).log() / 2).all()  # what is below the finest cells stays


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_draws_the_same_functions_again(family):
    one, other = (problems.functions(family, 2, 2, SIZES, GRID, rng(seed))[0] for seed in (0, 1))
    assert torch.equal(one, problems.functions(family, 2, 2, SIZES, GRID, rng(0))[0])
    assert not torch.allclose(one, other)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="family must be one of"):
        problems.functions("squares", 1, 1, SIZES, GRID, rng())


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("work")
    return pd.concat(
        [run(MESHES, MESHES.setting(case, "smoke"), Place(folder / case)) for case in MESHES.cases], ignore_index=True
    )


def test_every_claim_measure_and_sentence_has_its_numbers(rows):
    summary = measures.summarise(MESHES, rows)
    for claim in claims.declared(MESHES):
        assert claims.judge(claim, MESHES, summary)["verdict"] in claims.VERDICTS
    assert section(MESHES, summary)


def test_comparisons_are_paired_with_the_rule_that_they_name(rows):
    ends = selections.at_end(rows)
    family = selections.elsewhere(rows)
    assert len(family) == 2 * (9 * 2 - 3)
    ours, theirs = family["larger", "independent", "steps", "bumps"]
    assert ours.equals(ends.loc["larger", "bumps", "independent", "steps"])
    assert theirs.equals(ends.loc["larger", "bumps", "ZZ, L2", "none"])


def test_a_policy_that_learned_is_ahead_of_chance():
    p = build(
        experiment.Static,
        MESHES.setting("static", "smoke").parameters | {"updates": 25, "pool": 20, "batch": 4, "episodes": 4, "width": 8},
        "",
    )
    grid = quadtree.Grid(p.coarse, p.depth)
    pool = experiment.tables(p, "steps", 20, 0, training.POOL, grid, 1)
    network = experiment.trained(p, "independent", training.on_functions(grid, p.cuts, pool), 0)
    rules = {"policy": policies.scored(network, p.cuts)} | markings.rules(torch.Generator().manual_seed(0))
    ends = {
        name: markings.spend(quadtree.Mesh.uniform(grid, 20), pool, p.cuts, rules[name])[:, -1].log().mean()
        for name in ("policy", "random")
    }
    assert ends["policy"] < ends["random"]
