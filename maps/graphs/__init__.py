"""Fixed points on graphs: PageRank and discounted value iteration, from tensors or networkx graphs."""

from maps.graphs.convert import pagerank_problem, value_problem
from maps.graphs.pagerank import PageRank, PageRankProblem, pagerank_values
from maps.graphs.value_iteration import ValueIteration, ValueProblem, greedy_policy, optimal_values, policy_value

__all__ = [
    "PageRank",
    "PageRankProblem",
    "ValueIteration",
    "ValueProblem",
    "greedy_policy",
    "optimal_values",
    "pagerank_problem",
    "pagerank_values",
    "policy_value",
    "value_problem",
]
