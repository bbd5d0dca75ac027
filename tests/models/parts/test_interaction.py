import pytest
import torch

from models.parts.interaction import Tokens, cosine, euclidean, jaccard, order, token_wise


def _probabilities(rows: int, seed: int, width: int = 37) -> torch.Tensor:
    return torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)) ** 4


def _dense(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return torch.minimum(p[:, None], q).sum(-1) / torch.maximum(p[:, None], q).sum(-1)


@pytest.mark.parametrize("block_bytes", [1, 4096, 1 << 20])
def test_jaccard_is_minima_over_maxima_whatever_the_block(block_bytes):
    p, q = _probabilities(70, 1), _probabilities(130, 2)

    torch.testing.assert_close(jaccard(p, q, block_bytes), _dense(p, q), atol=1e-6, rtol=0)


def test_jaccard_and_its_gradient_are_the_dense_ones_in_training():
    p, q = _probabilities(9, 1).requires_grad_(), _probabilities(11, 2).requires_grad_()
    weights = torch.randn(9, 11, generator=torch.Generator().manual_seed(3))

    ours = torch.autograd.grad((jaccard(p, q) * weights).sum(), [p, q])

    for a, b in zip(ours, torch.autograd.grad((_dense(p, q) * weights).sum(), [p, q]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_equal_vectors_have_similarity_one_and_empty_ones_zero():
    p = _probabilities(5, 1)

    assert torch.equal(jaccard(p, p).diagonal(), torch.ones(5))
    assert torch.equal(jaccard(torch.zeros(2, 7), torch.zeros(3, 7)), torch.zeros(2, 3))


def test_equal_rows_score_equal_to_the_last_bit_wherever_they_stand():
    p, q = _probabilities(3, 1), _probabilities(200, 2)
    q[150] = q[3]

    scores = jaccard(p, q)

    assert torch.equal(scores[:, 150], scores[:, 3])


def test_cosine_of_a_zero_vector_is_zero():
    a = torch.tensor([[0.0, 0.0], [3.0, 4.0]])

    torch.testing.assert_close(cosine(a, a), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))


def test_euclidean_is_minus_the_squared_distance() -> None:
    a, b = _probabilities(4, 1), _probabilities(6, 2)

    torch.testing.assert_close(
        euclidean(a, b), -(a[:, None] - b).square().sum(-1), atol=1e-5, rtol=0
    )


def test_order_counts_only_what_a_text_has_beyond_a_video() -> None:
    text = torch.tensor([[1.0, 4.0], [0.0, 1.0]], requires_grad=True)

    scores = order(text, torch.tensor([[2.0, 1.0]]))
    scores.sum().backward()

    assert scores.tolist() == [[-3.0], [0.0]]
    assert text.grad.tolist() == [[0.0, -1.0], [0.0, 0.0]]


def _tokens(n: int, longest: int, seed: int) -> Tokens:
    random = torch.Generator().manual_seed(seed)
    real = torch.arange(longest) < torch.randint(1, longest + 1, (n, 1), generator=random)
    weight = torch.rand(n, longest, generator=random) * real
    vectors = torch.nn.functional.normalize(torch.randn(n, longest, 16, generator=random), dim=-1)
    return Tokens(vectors, real, weight / weight.sum(1, keepdim=True))


def _token_wise_in_loops(text: Tokens, video: Tokens) -> torch.Tensor:
    scores = torch.zeros(len(text.real), len(video.real))
    for a in range(len(text.real)):
        for b in range(len(video.real)):
            each = (text.vectors[a] @ video.vectors[b].T) * (text.real[a][:, None] & video.real[b])
            scores[a, b] = (each.max(1)[0] @ text.weight[a] + each.max(0)[0] @ video.weight[b]) / 2
    return scores


@pytest.mark.parametrize("block_bytes", [1, 2000, 1 << 20])
def test_token_wise_is_the_whole_tensor_whatever_the_block(block_bytes):
    text, video = _tokens(37, 9, 1), _tokens(70, 5, 2)

    found = token_wise(text, video, block_bytes)

    torch.testing.assert_close(found, _token_wise_in_loops(text, video), atol=1e-6, rtol=0)


def _real_only_in_loops(text: Tokens, video: Tokens) -> torch.Tensor:
    scores = torch.zeros(len(text.real), len(video.real))
    for a, words in enumerate(text.real):
        for b, frames in enumerate(video.real):
            each = text.vectors[a][words] @ video.vectors[b][frames].T
            t2v = each.max(1)[0] @ text.weight[a][words]
            v2t = each.max(0)[0] @ video.weight[b][frames]
            scores[a, b] = (t2v + v2t) / 2
    return scores


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_token_wise_may_leave_padding_out(block_bytes):
    text, video = _tokens(17, 9, 1), _tokens(20, 5, 2)
    trained = Tokens(text.vectors.clone().requires_grad_(), *text[1:])

    found = token_wise(text, video, block_bytes, padding_counts=False)
    whole = token_wise(trained, video, padding_counts=False)
    whole.sum().backward()

    expected = _real_only_in_loops(text, video)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.detach(), expected, atol=1e-6, rtol=0)
    assert trained.vectors.grad.isfinite().all()


def test_token_wise_in_training_is_the_same_and_gives_the_first_of_equal_frames_the_gradient():
    text, video = _tokens(5, 4, 1), _tokens(6, 3, 2)
    same = video.vectors[:, :1].repeat(1, 3, 1).requires_grad_()

    scores = token_wise(
        text,
        Tokens(same, torch.ones(6, 3, dtype=torch.bool), torch.tensor([[1.0, 0, 0]]).repeat(6, 1)),
    )
    scores.sum().backward()

    assert same.grad[:, 0].abs().sum() > 0 == same.grad[:, 1:].abs().sum()
    whole = token_wise(Tokens(text.vectors.clone().requires_grad_(), *text[1:]), video)
    torch.testing.assert_close(whole.detach(), token_wise(text, video), atol=1e-6, rtol=0)


def test_token_wise_needs_memory_for_a_block_only():
    text, video = _tokens(400, 16, 1), _tokens(400, 8, 2)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        token_wise(text, video, block_bytes=1 << 20)

    largest = max((event.cpu_memory_usage for event in seen.events()), default=0)
    assert largest < 2 * 4 * 400 * 400 * 2 + (2 << 20) < 4 * 400 * 400 * 16 * 8
