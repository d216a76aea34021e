"""The probe of a served teacher, before anything is learnt from it: is it the model that it is taken for, and does it answer alike?"""
