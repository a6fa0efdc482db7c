"""Recipes: one YAML file that says everything about a run, read and checked without heavy imports."""

from hf_tasks.recipe.load import Recipe, load_recipe, recipe_schema

__all__ = ["Recipe", "load_recipe", "recipe_schema"]
