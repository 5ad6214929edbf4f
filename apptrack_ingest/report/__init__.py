"""Tells idibu what became of an application: outcome to XML, idibu's answer to a result the worker acts on."""
